"""What the fork server of `ranks` imports before it forks, in addition to whole packages.

Every rank imports the module of its test, so what these import is here too: torch's compiler, scikit-learn and the model
families of transformers each take seconds. So are modules that are only imported while a rank trains: `imports.json` in its
work folder lists all imports in order.
"""

import io

import datasets  # noqa: F401  # imported for the effect, as are most others
import deepspeed.module_inject.auto_ep_layer
import deepspeed.ops.op_builder.all_ops
import deepspeed.runtime.zero.muon.muon_optimizer
import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
import pytest  # noqa: F401
import rouge_score.rouge_scorer  # noqa: F401
import sacrebleu  # noqa: F401
import seqeval.metrics.sequence_labeling  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import transformers.models.bart.modeling_bart
import transformers.models.bert.modeling_bert
import transformers.models.gpt2.modeling_gpt2
import transformers.models.llama.modeling_llama
import transformers.models.t5.modeling_t5
import transformers.models.vit.modeling_vit  # noqa: F401
import trl.chat_template_utils
import trl.data_utils  # noqa: F401
from matplotlib.figure import Figure
from tests.support import ciphers, corpora, learning, tiny, training  # noqa: F401

import finetune_trainer.tracking.plots
import finetune_trainer.training.trainer  # noqa: F401

corpora.spelt_out()  # parses every package of the corpora, and `functions` keeps the result

figure = Figure()
figure.add_subplot()
figure.savefig(io.BytesIO())  # loads the font, which takes longer than a plot
