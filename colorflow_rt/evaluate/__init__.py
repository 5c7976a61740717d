"""ColorFlow-Bench: pages coloured by us and by simple baselines, held against the colours that they should have.

    record = evaluate(Path("benchmark"), EvaluateOptions(pack="mini", limit=90), Path("quality.json.rows"))

The protocol is that of the paper (arXiv 2412.11815, section 4): chapters of pages with 40 references each, by style.
What each figure is stands in docs/quality.md.
"""

from colorflow_rt.evaluate.methods import METHODS
from colorflow_rt.evaluate.run import EvaluateOptions, evaluate

__all__ = ["METHODS", "EvaluateOptions", "evaluate"]
