"""Makes fixtures/trl.json: losses and gradients from TRL's own code, updates from torch's AdamW.

Run once, from this folder, with trl 1.16 and torch 2.15 installed:

    python make_trl_fixtures.py

`_compute_loss` of `GRPOTrainer`, `RLOOTrainer` and `DPOTrainer` are called as they are, on an object
that gives them only what they read. Numbers are drawn from a fixed seed; all arithmetic is float64, so
that the difference to the Rust side is the rounding of its inputs and outputs alone.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import nanstd

torch.set_default_dtype(torch.float64)
GROUPS, SAMPLES, MAX_TOKENS = 2, 4, 6
ROWS = GROUPS * SAMPLES


def draw():
    """Rewards, lengths and log-probabilities; f32 values, since that is what the Rust side takes."""
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randint(0, 3, (GROUPS, SAMPLES), generator=generator) / 2
    rewards[0] = torch.tensor([1.0, 0.0, 0.5, 0.5])
    lengths = torch.randint(2, MAX_TOKENS + 1, (ROWS,), generator=generator)
    shape = (ROWS, MAX_TOKENS)
    uniform = lambda low, high: low + (high - low) * torch.rand(shape, generator=generator)
    sampled = uniform(-3.0, -0.05).float().double()
    current = (sampled + uniform(-0.9, 0.9)).float().double()
    reference = (sampled + uniform(-0.3, 0.3)).float().double()
    mask = (torch.arange(MAX_TOKENS)[None] < lengths[:, None]).double()
    return rewards, lengths, sampled, current, reference, mask


def trainer(logps, **settings):
    """What `_compute_loss` reads of a trainer, for one process and no accumulation."""
    settings.setdefault("loss_type", "dapo")
    settings.setdefault("importance_sampling_level", "token")
    return SimpleNamespace(
        **settings,
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False,
        use_vllm=False,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        current_gradient_accumulation_steps=1,
        max_completion_length=MAX_TOKENS,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x
        ),
    )


def evaluate(kind, settings, advantages, sampled, current, reference, mask):
    logps = current.clone().requires_grad_()
    me = trainer(logps, **settings)
    ids = torch.zeros(ROWS, 1, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": torch.ones_like(ids),
        "completion_ids": torch.zeros(ROWS, MAX_TOKENS, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": sampled,
        "old_logps": (sampled * mask).sum(1),
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    loss = kind._compute_loss(me, me.model, inputs)
    loss.backward()
    metrics = me._metrics["train"]
    wanted = {"clip_fraction_low": "clip_ratio/low_mean", "clip_fraction_high": "clip_ratio/high_mean", "kl": "kl"}
    return {
        "loss": loss.item(),
        "gradient": logps.grad.tolist(),
        **{name: metrics[key][0] for name, key in wanted.items() if metrics[key]},
    }


def objectives():
    rewards, lengths, sampled, current, reference, mask = draw()
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = {
        "normalised": (centred / (nanstd(rewards, dim=1, keepdim=True) + 1e-4)).flatten(),
        "centred": centred.flatten(),
        "leave-one-out": (rewards - (rewards.sum(1, keepdim=True) - rewards) / (SAMPLES - 1)).flatten(),
    }
    grpo = lambda loss_type, low, high, beta, level="token": dict(
        loss_type=loss_type, epsilon_low=low, epsilon_high=high, beta=beta, importance_sampling_level=level
    )
    # Our name, low, high, beta, TRL's trainer and settings, advantages. TRL's `bnpo` and `dapo` divide
    # by the batch's completion tokens as our `grpo` does; its `cispo` takes the cap itself, we take
    # what is above 1.
    cases = [
        ("grpo", 0.2, 0.2, 0.0, GRPOTrainer, grpo("bnpo", 0.2, 0.2, 0.0), "normalised"),
        ("grpo", 0.2, 0.2, 0.04, GRPOTrainer, grpo("dapo", 0.2, 0.2, 0.04), "normalised"),
        ("dr-grpo", 0.2, 0.2, 0.04, GRPOTrainer, grpo("dr_grpo", 0.2, 0.2, 0.04), "centred"),
        ("dapo", 0.2, 0.28, 0.0, GRPOTrainer, grpo("dapo", 0.2, 0.28, 0.0), "normalised"),
        ("gspo", 0.05, 0.08, 0.04, GRPOTrainer, grpo("grpo", 0.05, 0.08, 0.04, "sequence"), "normalised"),
        ("cispo", 1.0, 0.3, 0.04, GRPOTrainer, grpo("cispo", None, 1.3, 0.04), "normalised"),
        ("rloo", 0.2, 0.2, 0.0, RLOOTrainer, grpo("dapo", 0.2, 0.2, 0.0), "leave-one-out"),
    ]
    found = []
    for name, low, high, beta, kind, settings, estimator in cases:
        values = advantages[estimator]
        result = evaluate(kind, settings, values, sampled, current, reference, mask)
        result["gradient"] = [row[:length] for row, length in zip(result["gradient"], lengths.tolist())]
        found.append(
            dict(objective=name, clip_low=low, clip_high=high, kl_beta=beta, advantages=values.tolist(), **result)
        )
    cut = lambda rows: [row[:length] for row, length in zip(rows.tolist(), lengths.tolist())]
    return {
        "max_tokens": MAX_TOKENS,
        "rewards": rewards.tolist(),
        "sampled": cut(sampled),
        "current": cut(current),
        "reference": cut(reference),
        "cases": found,
    }


def prefer(loss_type, beta, pairs, current, reference, mask):
    """`DPOTrainer`'s loss of pairs of rows, chosen and rejected; "sft" is its loss of the chosen ones."""
    logps = current.clone().requires_grad_()
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    # One prompt token before each completion; what is no completion has no log-probability.
    completion_mask = torch.cat([torch.zeros(len(rows), 1), mask[rows]], dim=1)
    none = torch.zeros(len(rows), MAX_TOKENS)
    outputs = SimpleNamespace(
        log_probs=logps[rows] * mask[rows], entropy=none, mean_logits=none, is_top1=none.bool()
    )

    class Model:
        training = True

        def __call__(self, **_):
            return outputs

    same = lambda x: x
    me = SimpleNamespace(
        model=Model(),
        accelerator=SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        label_smoothing=0.0,
        use_weighting=False,
        beta=beta,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    ref_chosen, ref_rejected = (reference * mask).sum(1)[rows].chunk(2)
    inputs = {
        "input_ids": torch.zeros(completion_mask.shape, dtype=torch.long),
        "attention_mask": torch.ones(completion_mask.shape, dtype=torch.long),
        "completion_mask": completion_mask.long(),
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    loss = DPOTrainer._compute_loss(me, me.model, inputs, False)
    loss.backward()
    wanted = {"chosen_reward": "chosen", "rejected_reward": "rejected", "accuracy": "accuracies", "margin": "margins"}
    metrics = {name: me._metrics["train"][f"rewards/{key}"][0] for name, key in wanted.items()}
    return {"loss": loss.item(), "gradient": logps.grad.tolist(), **metrics}


def preferences():
    rewards, lengths, _, current, reference, mask = draw()
    # TRL is given pairs; these are the best and the worst of each group, the first of equals.
    pairs = []
    for group, of_group in enumerate(rewards.tolist()):
        best, worst = (of_group.index(pick(of_group)) for pick in (max, min))
        pairs.append([group * SAMPLES + best, group * SAMPLES + worst])
    found = []
    for name, loss_type, beta in [("dpo", "sigmoid", 0.1), ("dpo", "sigmoid", 1.5), ("sft", "sft", 0.1)]:
        result = prefer(loss_type, beta, pairs, current, reference, mask)
        result["gradient"] = [row[:length] for row, length in zip(result["gradient"], lengths.tolist())]
        found.append(dict(objective=name, beta=beta, **result))
    return {"pairs": pairs, "cases": found}


def adamw():
    """Five updates of a matrix and a vector, float32, with clipping; decay on the matrix only."""
    generator = torch.Generator().manual_seed(7)
    normal = lambda *shape: torch.randn(*shape, generator=generator).float()
    matrix, vector = normal(3, 5), normal(5)
    start = [matrix.flatten().tolist(), vector.tolist()]
    matrix, vector = torch.nn.Parameter(matrix), torch.nn.Parameter(vector)
    optimizer = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": 0.1}, {"params": [vector], "weight_decay": 0.0}],
        betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False,
    )
    steps = []
    for step in range(5):
        rate = 1e-2 * (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        matrix.grad, vector.grad = normal(3, 5) * (step + 1) / 8, normal(5)
        gradients = [matrix.grad.flatten().tolist(), vector.grad.tolist()]
        norm = torch.nn.utils.clip_grad_norm_([matrix, vector], 2.5)
        optimizer.step()
        values = [matrix.detach().flatten().tolist(), vector.detach().tolist()]
        steps.append(dict(learning_rate=rate, gradients=gradients, gradient_norm=norm.item(), values=values))
    return dict(
        beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, max_gradient_norm=2.5, start=start, steps=steps
    )


if __name__ == "__main__":
    made_with = {"trl": trl.__version__, "torch": torch.__version__.split("+")[0]}
    fixtures = {
        "made_with": made_with,
        "objectives": objectives(),
        "preferences": preferences(),
        "adamw": adamw(),
    }
    path = Path(__file__).parent / "fixtures" / "trl.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(fixtures, indent=1) + "\n")
