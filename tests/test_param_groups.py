"""A grown checkpoint's rates in other people's trainers: the same steps as growkit's own."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_runs import dataset, losses_of, tokenizer

import growkit
from growkit.data.batches import Batches
from growkit.data.tokens import open_tokens
from growkit.errors import CheckpointError, RequestError
from tests.tiny import make

LR, STEPS, LENGTH, SIZE = 1e-3, 4, 16, 4
RUN = dict(
    multipliers="exact", lr=LR, warmup=0, decay="constant", seq_len=LENGTH, batch_size=SIZE, clip=1.0, weight_decay=0.1
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    data = dataset(folder / "data", 2000)
    make("llama", dtype=torch.float32).save_pretrained(folder / "small")
    growkit.pretrain(folder / "small", data, folder / "run", steps=2, **RUN)
    moments = folder / "run/final/optimizer/optimizer.safetensors"
    growkit.widen(folder / "run/final", folder / "grown", hidden=48, optimizer=moments, verify=False)
    (folder / "grown/optimizer/optimizer.safetensors").unlink()  # the others begin with fresh moments too
    growkit.pretrain(folder / "grown", data, folder / "ours", steps=STEPS, **RUN)
    return folder


def live(world):
    return transformers.AutoModelForCausalLM.from_pretrained(world / "grown", dtype=torch.float32).eval()


def shown(world):
    batches = Batches(tokens=open_tokens(world / "data").ids, length=LENGTH, size=SIZE)
    return [batches.rows(step, 0, SIZE) for step in range(STEPS)]


def test_each_parameter_is_in_one_group_with_its_rate(world):
    model = live(world)
    groups = growkit.param_groups(model, world / "grown", lr=LR)
    parameters = [id(p) for group in groups for p in group["params"]]
    assert sorted(parameters) == sorted(map(id, model.parameters()))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(set(rates.values())) > 1  # a widened model's differ
    assert {group["lr"] for group in growkit.param_groups(model, world / "small", lr=LR)} == {LR}  # it was not grown


def test_a_bare_loop_steps_as_pretrain_does(world):
    model = live(world)
    optimizer = torch.optim.AdamW(growkit.param_groups(model, world / "grown", lr=LR), betas=(0.9, 0.95))
    losses = []
    for batch in shown(world):
        logits = model(batch.inputs).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, batch.labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == pytest.approx(losses_of(world / "ours"), abs=1e-5)


def in_order(trainer):
    """A kind of Trainer that takes rows in their order, and a list of the losses of its steps."""
    losses = []

    class Ordered(trainer):
        def _get_train_sampler(self, *_, **__):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, *given, **named):
            loss = super().training_step(*given, **named)
            losses.append(loss.item())
            return loss

    return Ordered, losses


def windows(world):
    """The rows that pretrain sees; their models shift labels themselves, so each goes in with the token behind it."""
    return [torch.cat([row, label[-1:]]) for batch in shown(world) for row, label in zip(batch.inputs, batch.labels)]


def plainly(folder):
    """What a Trainer is told so that it does nothing else."""
    return dict(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=SIZE, lr_scheduler_type="constant",
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip


def test_transformers_trainer_steps_as_pretrain_does(world, tmp_path):
    pytest.importorskip("accelerate")
    model, (trainer, losses) = live(world), in_order(transformers.Trainer)
    optimizer = torch.optim.AdamW(growkit.param_groups(model, world / "grown", lr=LR), betas=(0.9, 0.95))
    arguments = transformers.TrainingArguments(**plainly(tmp_path))
    rows = [{"input_ids": row, "labels": row} for row in windows(world)]
    trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None)).train()
    assert losses == pytest.approx(losses_of(world / "ours"), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_trls_sft_trainer_steps_as_pretrain_does(world, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    from datasets import Dataset

    model, (trainer, losses) = live(world), in_order(trl.SFTTrainer)
    optimizer = torch.optim.AdamW(growkit.param_groups(model, world / "grown", lr=LR), betas=(0.9, 0.95))
    config = trl.SFTConfig(bf16=False, gradient_checkpointing=False, **plainly(tmp_path))
    words = tokenizer(mask=False)
    words.pad_token = words.eos_token = "[PAD]"
    rows = Dataset.from_list([{"input_ids": row.tolist()} for row in windows(world)])
    trainer(model, args=config, train_dataset=rows, optimizers=(optimizer, None), processing_class=words).train()
    assert losses == pytest.approx(losses_of(world / "ours"), abs=1e-5)
    after = load_file(world / "ours/final/model.safetensors")
    for name, tensor in model.state_dict().items():
        assert (tensor - after[name]).abs().max() < 1e-5, name


def test_wrapped_models_have_the_same_rates(world):
    model = live(world)
    plain = growkit.param_groups(model, world / "grown", lr=LR)
    rates = {id(p): group["lr"] for group in plain for p in group["params"]}
    compiled = growkit.param_groups(torch.compile(model), world / "grown", lr=LR)
    assert {id(p): group["lr"] for group in compiled for p in group["params"]} == rates
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    (group,) = growkit.param_groups(adapted, world / "grown", lr=LR)
    assert group["lr"] == LR and len(group["params"]) == 2 * model.config.num_hidden_layers
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    everything = growkit.param_groups(adapted, world / "grown", lr=LR)
    assert rates.items() <= {id(p): group["lr"] for group in everything for p in group["params"]}.items()


def test_refusals(world, tmp_path):
    with pytest.raises(CheckpointError, match="'nowhere' is no folder; name the one that the model was loaded from"):
        growkit.param_groups(live(world), Path("nowhere"), lr=LR)
    other = make("gpt2", dtype=torch.float32)
    says = rf"lr_multipliers\.json' names '.*' where the model has '{re.escape(next(other.named_parameters())[0])}'"
    with pytest.raises(RequestError, match=says):
        growkit.param_groups(other, world / "grown", lr=LR)
    with pytest.raises(RequestError, match="no parameter of the model needs a gradient"):
        growkit.param_groups(live(world).requires_grad_(False), world / "grown", lr=LR)
