"""The script of a Slurm array job that judges a plan."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .plan import Plan

_SCRIPT = """\
#!/bin/sh
#SBATCH --job-name=fxpipe
#SBATCH --array=1-{tasks}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={log}
# Each task judges one of {tasks} parts of the plan. A task that ends early is queued again, up to
# {restarts} times, and resumes. When all tasks have finished:
#   {merge}
{run} --shard "$SLURM_ARRAY_TASK_ID/{tasks}"
code=$?
case $code in
  0 | 1) exit 0 ;; # 1: some files got a failed row
  2) exit 2 ;;     # the command is wrong, so it would fail again
esac
if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit $code
"""
_RESTARTS = 10


def array_script(
    plan: Plan, tasks: int, output: Path, program: Sequence[str], words: Sequence[str] = ()
) -> str:
    """The script for ``sbatch``.

    Args:
        plan: The plan, in a folder that all nodes share.
        tasks: Number of tasks; more than the number of chunks is useless.
        output: Output folder, which all nodes share.
        program: Command of fxpipe on the nodes.
        words: Further options of ``fxpipe run``.
    """
    shared = ["--plan", str(plan.file.resolve()), "--output", str(output.resolve())]
    return _SCRIPT.format(
        tasks=min(tasks, plan.chunks), restarts=_RESTARTS,
        log=str(output.resolve() / "slurm-%a.log").replace(" ", "\\ "),
        run=shlex.join([*program, "run", *shared, "--quiet", *words]),
        merge=shlex.join([*program, "merge", *shared]),
    )  # fmt: skip
