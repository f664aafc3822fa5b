"""Training rows as export writes them, for tests that train."""

from divcon.programs import RolePredict
from divcon.signatures import Decompose, Subquestions


def training_rows(count: int = 12) -> list[dict]:
    decompose = RolePredict(Decompose, "decomposer")
    return [
        decompose.training_row(
            {"question": f"What is {i} plus {i + 1} after a walk of {'long ' * (i % 4)}hours?"},
            {"subquestions": Subquestions([f"What is {i}?", f"What is {i + 1} more?"])},
        )
        for i in range(count)
    ]
