"""Optimize the teacher's decomposition prompt with MIPROv2, then with GEPA, and move it to a small local model.

    OPENAI_API_KEY=... python examples/optimize_then_distil.py

LARGE and LARGE_BASE name another model and another server.
"""

import os

import dspy

from divcon import DecompositionMetric, DistillDecomposer, DivideAndConquer, OneRole, TrainSettings
from divcon.benchmarks import is_right
from divcon.benchmarks.tasks import Task, load_task

large = dspy.LM(os.environ.get("LARGE", "openai/gpt-5-mini"), api_base=os.environ.get("LARGE_BASE"))
items = load_task(Task(name="word-problems", train=24, test=1)).train
by_question = {item.question: item for item in items}
examples = [item.example() for item in items]
metric = DecompositionMetric(lambda example, answer: is_right(by_question[example.question], answer))

program = DivideAndConquer(decomposer=large, solver=large)
view = OneRole(program, "decompose")  # optimizers see the decomposer alone; the solver's prompt stays as it is

mipro = dspy.MIPROv2(metric=metric, prompt_model=large, task_model=large, auto=None, num_candidates=2, num_threads=4)
view = mipro.compile(
    view,
    trainset=examples[:6],
    valset=examples[6:10],
    num_trials=2,
    minibatch=False,
    max_bootstrapped_demos=1,
    max_labeled_demos=0,
)
gepa = dspy.GEPA(metric=metric, reflection_lm=large, max_metric_calls=20, num_threads=4)
view = gepa.compile(view, trainset=examples[:6], valset=examples[6:10])
print("instruction:", view.program.decompose.signature.instructions)

tune = DistillDecomposer(metric, "runs/optimized", train=TrainSettings(epochs=1, batch_size=4, rank=16))
distilled = tune.compile(view.program, trainset=examples[10:], valset=examples[:4])
print(distilled.distillation)
