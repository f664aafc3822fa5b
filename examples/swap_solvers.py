"""Swap the solver: one line of the pipeline file, here as an override, while the trained decomposer stays.

    python examples/swap_solvers.py examples/demo.yaml runs/demo embedded/solver openai/gpt-5-mini

The folder is one that `divcon run` made of the file; SOLVER_BASE names another server.
"""

import os
import sys
from pathlib import Path

from divcon import Run, load_pipeline

file, folder, *solvers = sys.argv[1:]
for solver in solvers:
    server = "null" if solver.startswith("embedded/") else os.environ.get("SOLVER_BASE", "null")
    swap = [f"roles.solver.model={solver}", f"roles.solver.api_base={server}"]
    run = Run(load_pipeline(Path(file), swap), Path(folder))
    said = run.ask("Ada buys 3 bags with 4 plums each. Then 2 plums are eaten. How many plums are left?")
    print(f"{solver}: {said.answer} ({said.student}, {len(said.subquestions)} subquestions)")
