"""An administrator's profiles: defaults for the pods of jobs, and limits on what documents may say about them."""

from finetune_operator.profiles.model import Defaults, Limits, Profile
from finetune_operator.profiles.profiles import ProfileError, Profiles

__all__ = ["Defaults", "Limits", "Profile", "ProfileError", "Profiles"]
