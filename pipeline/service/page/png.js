/* Decoder for 16-bit grey PNG files, which browsers reduce to 8 bits. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/**
 * Decode a PNG of one grey channel, of 8 or 16 bits, not interlaced.
 *
 * Returns { width, height, values }, with values from 0 to 65535 as Uint16Array.
 */
export async function decodeGrey(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (SIGNATURE.some((byte, place) => file[place] !== byte)) throw new Error("found no PNG file");
  let header = null;
  const parts = [];
  for (let at = 8; at + 12 <= file.length;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...file.subarray(at + 4, at + 8));
    if (kind === "IHDR") {
      header = { width: view.getUint32(at + 8), height: view.getUint32(at + 12),
        depth: file[at + 16], colour: file[at + 17], interlaced: file[at + 20] };
    } else if (kind === "IDAT") parts.push(file.subarray(at + 8, at + 8 + length));
    else if (kind === "IEND") break;
    at += 12 + length;
  }
  if (!header || header.colour !== 0 || header.interlaced || ![8, 16].includes(header.depth)) {
    throw new Error("found another kind of PNG, expected grey values of 8 or 16 bits");
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(stream).arrayBuffer());
  return { width: header.width, height: header.height, values: unfiltered(lines, header) };
}

function unfiltered(lines, { width, height, depth }) {
  const step = depth / 8;
  const stride = width * step;
  if (lines.length < height * (stride + 1)) throw new Error("the PNG file is truncated");
  const values = new Uint16Array(width * height);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y += 1) {
    const start = y * (stride + 1);
    const line = lines.subarray(start + 1, start + 1 + stride);
    restore(lines[start], line, above, step);
    const row = y * width;
    if (step === 2) for (let x = 0; x < width; x += 1) values[row + x] = line[2 * x] << 8 | line[2 * x + 1];
    else for (let x = 0; x < width; x += 1) values[row + x] = line[x] * 257;
    above = line;
  }
  return values;
}

/** Undo the filter of a line in place. */
function restore(filter, line, above, step) {
  if (filter === 1) {
    for (let i = step; i < line.length; i += 1) line[i] += line[i - step];
  } else if (filter === 2) {
    for (let i = 0; i < line.length; i += 1) line[i] += above[i];
  } else if (filter === 3) {
    for (let i = 0; i < line.length; i += 1) {
      line[i] += ((i < step ? 0 : line[i - step]) + above[i]) >> 1;
    }
  } else if (filter === 4) {
    for (let i = 0; i < line.length; i += 1) {
      const left = i < step ? 0 : line[i - step];
      const corner = i < step ? 0 : above[i - step];
      const up = above[i];
      const toLeft = Math.abs(up - corner);
      const toUp = Math.abs(left - corner);
      const toCorner = Math.abs(left + up - 2 * corner);
      line[i] += toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner;
    }
  } else if (filter !== 0) throw new Error(`found PNG filter ${filter}, expected 0 to 4`);
}
