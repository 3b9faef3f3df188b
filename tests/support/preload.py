"""Modules that the fork server of `ranks` imports before it forks, in addition to whole packages."""

import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # imports torch's compiler, which takes seconds
import transformers.models.gpt2.modeling_gpt2
import transformers.models.llama.modeling_llama  # noqa: F401  # imported for the effect

import finetune_trainer.training.trainer  # noqa: F401
