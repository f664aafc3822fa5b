"""Distil the planner of a program that isn't ours: a teacher plans, a small model learns to, the actor stays.

    OPENAI_API_KEY=... python examples/distil_planner.py

TEACHER and TEACHER_BASE name another model and another server.
"""

import os

import dspy

from divcon import DistillDecomposer, TrainSettings


class Errand(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("goal -> steps", "Plan the errand in two short numbered steps.")
        self.act = dspy.Predict("goal, steps -> price: int", "Follow the steps and give the price in cents.")

    def forward(self, goal: str) -> dspy.Prediction:
        steps = self.plan(goal=goal).steps
        return dspy.Prediction(steps=steps, price=self.act(goal=goal, steps=steps).price)


teacher = dspy.LM(os.environ.get("TEACHER", "openai/gpt-5-mini"), api_base=os.environ.get("TEACHER_BASE"))
errands = [(f"Buy {n} plums at {c} cents", n * c) for n in range(2, 8) for c in (5, 10, 20)]
examples = [dspy.Example(goal=goal, price=price).with_inputs("goal") for goal, price in errands]

program = Errand()
program.set_lm(teacher)
tune = DistillDecomposer(
    lambda example, prediction, trace=None: prediction.price == example.price,
    folder="runs/errands",
    predictor="plan",
    train=TrainSettings(epochs=2, batch_size=4, rank=16, learning_rate=2e-3),
)
distilled = tune.compile(program, trainset=examples[:-2])

print(f"{distilled.distillation['kept']} of {distilled.distillation['collected']} plans led to the right price")
for example in examples[-2:]:
    print(f"{example.goal}: {distilled(goal=example.goal)}")
