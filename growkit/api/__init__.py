"""What people call: the public functions, which are the commands' declarations too. Light: nothing heavy is imported
before a function is called.

One file for each command, of its name; each builds its request first, in the words of the rooms below, and hands it on.
"""

from growkit.api.apply import apply
from growkit.api.chain import chain
from growkit.api.check_family import check_family
from growkit.api.delta import delta
from growkit.api.evaluate import evaluate
from growkit.api.forecast import forecast
from growkit.api.fuse import fuse
from growkit.api.generate import generate
from growkit.api.grow import grow
from growkit.api.grow_state_dict import grow_state_dict
from growkit.api.init import init
from growkit.api.inspect import inspect
from growkit.api.load_skills import load_skills
from growkit.api.merge import merge
from growkit.api.panel import panel
from growkit.api.panel_show import panel_show
from growkit.api.param_groups import param_groups
from growkit.api.pretrain import pretrain
from growkit.api.push import push
from growkit.api.report import report
from growkit.api.skill_apply_layer import skill_apply_layer
from growkit.api.skill_carry import skill_carry
from growkit.api.skill_check import skill_check
from growkit.api.skill_dial import skill_dial
from growkit.api.skill_learn import skill_learn
from growkit.api.skill_plug import skill_plug
from growkit.api.stack import stack
from growkit.api.teach import teach
from growkit.api.tokenize import tokenize
from growkit.api.tune import tune
from growkit.api.upcycle import upcycle
from growkit.api.verify import verify
from growkit.api.widen import widen

__all__ = [
    "apply", "chain", "check_family", "delta", "evaluate", "forecast", "fuse", "generate", "grow", "grow_state_dict", "init", "inspect", "load_skills", "merge", "panel", "panel_show", "param_groups",
    "pretrain", "push", "report", "skill_apply_layer", "skill_carry", "skill_check", "skill_dial", "skill_learn", "skill_plug", "stack", "teach", "tokenize", "tune", "upcycle", "verify", "widen",
]  # fmt: skip
