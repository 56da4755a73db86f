/* Grey values: brightness, contrast and inversion as a window of 16 bits. */

const MOST_CANVAS_PX = 16_000_000; // supported by phones

/** Slope and intercept of the grey values in [0, 1]; 1 and 0 change nothing. */
export function greyTable({ brightness, contrast, invert }) {
  const width = 2 ** (-contrast / 50);
  const centre = 0.5 - brightness / 100;
  const slope = 1 / width;
  const intercept = 0.5 - centre / width;
  // Limit the maximum, because the background of an inverted picture would be full white.
  return invert ? { slope: -0.85 * slope, intercept: 0.85 * (1 - intercept) } : { slope, intercept };
}

/** Draw 16-bit grey values on a canvas of their size, downscaled if that is too large. */
export function paint(canvas, { width, height, values }, look) {
  const { slope, intercept } = greyTable(look);
  const table = new Uint32Array(65536);
  for (let value = 0; value < 65536; value += 1) {
    const grey = Math.round(255 * Math.min(Math.max(slope * value / 65535 + intercept, 0), 1));
    table[value] = 0xff000000 | grey << 16 | grey << 8 | grey;
  }
  const step = Math.max(1, Math.ceil(Math.sqrt(width * height / MOST_CANVAS_PX)));
  const [columns, rows] = [Math.ceil(width / step), Math.ceil(height / step)];
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const colours = new Uint32Array(image.data.buffer);
  if (step === 1) {
    for (let i = 0; i < values.length; i += 1) colours[i] = table[values[i]];
  } else {
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < columns; x += 1) {
        colours[y * columns + x] = table[values[y * step * width + x * step]];
      }
    }
  }
  context.putImageData(image, 0, 0);
}
