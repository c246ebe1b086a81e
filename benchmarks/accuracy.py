"""The fair table: the bounded multi-resolution network beside what people use, at equal cost, on the same cases.

    python benchmarks/accuracy.py [--rows nnunet ours ...] [--seeds 0 1 2] [--seconds 1200 | --steps 550]
        [--bf16] [--results benchmarks/accuracy.json] [--folder cases] [--table]

Every row (accuracy_rows.py) is trained from scratch on the same synthetic trees with the same draws of patches, by the
same loop: Muon and AdamW, warm-up and cosine decay, clipped gradients, averaged weights. `--seconds` are CPU seconds
of the training itself (drawing of patches left out), `--steps` optimisation steps; the default, 1200 s, is ten minutes
on two cores. `--bf16` trains every row in mixed precision, as nnU-Net does by default: on a CPU with AVX-512 a DynUNet
then takes a third of the time, which the longer table (`--bf16 --seconds 4000`) uses. Then each row segments the test
cases (accuracy_cases.py): held-out synthetic trees, and simulated scans of cerebral and pulmonary arteries and of the
circle of Willis, with isotropic voxels and with slices 3 and 5 times as thick. No row is post-processed; a second table
keeps the largest component of every row. The threshold is the row's usual one (0.5, or distance zero); the curve over
thresholds of trees is in the results. The ablation: `--steps 1000 --rows ours mean no_bound no_coarse ...`
(`accuracy_rows.rows` has all names).

What was finished is kept in the results file (row, seed, budget, settings) and is not run again, trained weights are
kept in the folder; `--table` runs nothing. Nobody notices if the code of the networks or the generator has changed
since: then begin with an empty folder and without a results file. Rows run one after the other, each in a process of
its own; the number of threads is torch's.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from accuracy_tables import TREES, tables

from vesselsdf.files import atomic_path, jsonable, write_text

RATE, DECAY, CLIP, AVERAGE = 3e-3, 1e-2, 1.0, 0.99
BATCH = 2
ROWS = ("nnunet", "cldice", "recall", "single", "ours")


def train(row, cases, seed: int, budget: dict) -> tuple:
    """The trained network, and what training took."""
    import torch
    from accuracy_rows import PATCH

    from vesselsdf.network import VesselNet
    from vesselsdf.optimiser import Optimiser
    from vesselsdf.sampling import draw
    from vesselsdf.training import ADAPTING, learning_rate, update_average

    torch.manual_seed(seed)
    network = row.build()
    if budget.get("bf16"):
        in_bfloat16(network)
    optimiser = Optimiser(network, RATE, DECAY)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    spent, step, share, losses = 0.0, 0, 0.0, []
    while share < 1:
        batch = draw(cases, PATCH, BATCH, seed, step)
        start = time.process_time()
        network.train()
        if isinstance(network, VesselNet) and share >= ADAPTING:
            network.hold_statistics()
        loss = row.loss(network, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step(learning_rate(round(1000 * share), 1000, RATE))
        update_average(average, network.state_dict(), AVERAGE, step)
        step, spent = step + 1, spent + time.process_time() - start
        losses.append(loss.item())
        share = step / budget["steps"] if "steps" in budget else spent / budget["seconds"]
        if step % 50 == 0:
            print(f"  step {step}, {spent:.0f} s, loss {np.mean(losses[-50:]):.3f}", file=sys.stderr, flush=True)
    network.load_state_dict(average)
    facts = {
        "steps": step,
        "train_seconds": spent,
        "voxels_per_second": step * BATCH * PATCH**3 / spent,
        "parameters": sum(part.numel() for part in network.parameters()),
        "loss": float(np.mean(losses[-50:])),
        "threads": torch.get_num_threads(),
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    return network.eval(), facts


def in_bfloat16(network) -> None:
    """Have the network compute in bfloat16 where autocast does; its weights, its fields and the losses are float32."""
    import torch

    plain = network.forward

    def forward(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16):
            made = plain(*args, **kwargs)
        return [field.float() for field in made] if isinstance(made, list) else made.float()

    network.forward = forward


def trained(name: str, seed: int, budget: dict, folder: Path) -> tuple:
    """The trained network of a row and what training took, from the folder if it was trained before."""
    import torch
    from accuracy_cases import training_cases
    from accuracy_rows import rows
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    row = rows()[name]
    path = folder / f"{hashlib.sha256(key_of(name, seed, budget).encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        network, facts = train(row, training_cases(folder / "training"), seed, budget)
        # Copies: parts of a DynUNet go by two names.
        weights = {
            key: value.clone(memory_format=torch.contiguous_format) for key, value in network.state_dict().items()
        }
        with atomic_path(path) as temporary:
            save_file(weights, temporary, {"facts": json.dumps(facts)})
    network = row.build()
    network.load_state_dict(load_file(path))
    with safe_open(path, "pt") as stored:
        return network.eval(), json.loads(stored.metadata()["facts"])


def one(name: str, seed: int, budget: dict, folder: Path) -> dict:
    """Train and score one row; in a process of its own."""
    import torch
    from accuracy_cases import test_cases
    from accuracy_rows import rows
    from accuracy_scores import largest_component, quick_score, score

    from vesselsdf.network import VesselNet

    row = rows()[name]
    network, facts = trained(name, seed, budget, folder)
    results, seconds, voxels = [], 0.0, 0
    for case in test_cases(folder / "test"):
        start = time.process_time()
        with torch.inference_mode():
            found = row.predict(network, case)
        seconds, voxels = seconds + time.process_time() - start, voxels + case.image.size
        mask = found <= row.usual
        results.append(
            {
                "case": case.name,
                "group": case.group,
                "slices": case.slices,
                "as it is": score(mask, case),
                "largest component": score(largest_component(mask), case),
                "curve": {str(t): quick_score(found <= t, case) for t in row.thresholds if case.group == TREES},
            }
        )
        print(f"  {case.name}: Dice {results[-1]['as it is']['dice']:.3f}", file=sys.stderr, flush=True)
    facts["infer_voxels_per_second"] = voxels / seconds
    if isinstance(network, VesselNet):
        trees = [case for case in test_cases(folder / "test") if case.group == TREES]
        facts["reach"] = mean_reach(network, trees)
    return {**facts, "title": row.title, "cases": results}


def mean_reach(network, cases) -> dict[str, float]:
    """How much of the true centreline each level can still make vessel, and the share of voxels that are active."""
    import torch
    from accuracy_rows import levels

    from vesselsdf.evaluation import reachable

    with torch.inference_mode():
        rows = [reachable(network, levels(network, case), case.sdf.array <= 0, 1.0) for case in cases]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def short(number: str) -> float:
    """Five digits of a number, so that the results file stays small."""
    return float(f"{float(number):.5g}")


def keep(path: Path, known: dict[str, dict]) -> None:
    """Write the results file, a line per result."""
    lines = [f"{json.dumps(key)}: {json.dumps(jsonable(result), allow_nan=False)}" for key, result in known.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def key_of(name: str, seed: int, budget: dict) -> str:
    """Under which a result is kept: the row with all that its network and loss depend on, the seed and the budget."""
    from accuracy_rows import PATCH, rows

    settings = {"patch": PATCH, "batch": BATCH, "rate": RATE} | rows()[name].settings
    return json.dumps([name, seed, budget, settings], sort_keys=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=1200.0, help="CPU seconds of training")
    parser.add_argument("--steps", type=int, help="optimisation steps instead of seconds")
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vesselsdf_accuracy")
    parser.add_argument("--table", action="store_true", help="print what is known, run nothing")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    given = arguments()
    budget = {"steps": given.steps} if given.steps else {"seconds": given.seconds}
    budget |= {"bf16": True} if given.bf16 else {}
    if given.one:
        print(json.dumps(one(given.one[0], int(given.one[1]), budget, given.folder)))
        return 0
    known = json.loads(given.results.read_text()) if given.results.exists() else {}
    for seed in () if given.table else given.seeds:
        for name in given.rows:
            key = key_of(name, seed, budget)
            if key in known:
                continue
            print(f"{name}, seed {seed}, {budget}", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name, str(seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                return 1
            known = json.loads(given.results.read_text()) if given.results.exists() else {}
            known[key] = json.loads(done.stdout.strip().splitlines()[-1], parse_float=short)
            keep(given.results, known)
    print(
        tables([known[key] for key in (key_of(n, s, budget) for n in given.rows for s in given.seeds) if key in known])
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
