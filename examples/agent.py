"""Compose: a two-stage program as one tool of a larger agent, its decomposer small and local, its solver large.

    OPENAI_API_KEY=... python examples/agent.py

LARGE and LARGE_BASE name another model and another server; DECOMPOSER names a trained adapter's folder.
"""

import os

import dspy

from divcon import LEARNT, DivideAndConquer, Ledger, as_tool, embedded_lm

large = dspy.LM(os.environ.get("LARGE", "openai/gpt-5-mini"), api_base=os.environ.get("LARGE_BASE"))
trained = os.environ.get("DECOMPOSER")  # its planner gets the prompt that it was trained on
wording = LEARNT if trained else None
program = DivideAndConquer(embedded_lm(adapter=trained), large, decomposer_wording=wording)


def today() -> str:
    """The day of the week."""
    return "Tuesday"


class Assistant(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.agent = dspy.ReAct("request -> answer", tools=[as_tool(program), today], max_iters=4)

    def forward(self, request: str) -> dspy.Prediction:
        return self.agent(request=request)


with dspy.context(lm=large), Ledger() as ledger:
    result = Assistant()(request="Ada has 3 bags of 4 plums and eats 2. How many plums are left?")

print(result.answer)
for role, used in ledger.as_dict().items():
    print(f"{role}: {used['calls']} calls, {used['input_tokens']} tokens in, {used['output_tokens']} out")
