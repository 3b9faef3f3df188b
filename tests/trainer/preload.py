"""What the server of `ranks` imports before it forks, beside whole packages."""

import finetune_trainer.loop
import transformers.models.gpt2.modeling_gpt2
import transformers.models.llama.modeling_llama  # noqa: F401  # imported for the effect
