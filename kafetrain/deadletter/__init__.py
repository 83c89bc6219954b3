"""Dead letters and stuck keys: what an operator looks at, decides, and asks the retry consumer to do."""

from kafetrain.core.control import Action
from kafetrain.deadletter.dead_letters import DeadLetters
from kafetrain.deadletter.history import KeyEvent
from kafetrain.deadletter.key_text import key_text, parse_key
from kafetrain.deadletter.letter import DeadLetter, Filter
from kafetrain.deadletter.plans import Change, Effect, Plan, Result, Target
from kafetrain.deadletter.transforms import TransformError

__all__ = [
    "Action",
    "Change",
    "DeadLetter",
    "DeadLetters",
    "Effect",
    "Filter",
    "KeyEvent",
    "Plan",
    "Result",
    "Target",
    "TransformError",
    "key_text",
    "parse_key",
]
