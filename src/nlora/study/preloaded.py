"""What the worker processes of a comparison are forked with, so that none imports it again."""

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import nlora.analysis.report
import nlora.continual.commit
import nlora.continual.model
import nlora.continual.stages
import nlora.evaluation.greedy
import nlora.study.worker
import nlora.training.loop  # noqa: F401

get_checkpoint_conversion_mapping("llama")  # which the first model that is loaded makes
gc.collect()
gc.freeze()  # out of the sight of the collector of each worker
