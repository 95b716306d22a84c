"""Cells of the study, carried out by growkit's own commands in folders that can be taken up anywhere: datasets, sources,
pilots that choose a rate, starts, runs. Knows the order of things; ignorant of what the figures say.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study_arms import Arm
from study_clock import Clock, taught_steps
from study_grid import Cell, Grid, arm_of

import growkit
from growkit.checkpoint.headers import file_hash
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.writer import write_json
from growkit.data.tokens import open_tokens
from growkit.errors import RequestError
from growkit.growth.sources import open_source
from growkit.reports.runs import read_run
from growkit.training.blank import blank_model
from growkit.training.flops import forward_flops

DONE = "done.json"  # beside a model that is whole, with what the study knows of it
DEEPENING = ("stackbert", "mslt", "late")  # schedules that are told where they end
SPENT = "start.json"  # beside a start whose maps learned: what that took
ORDER, PILOT = 1000, 2000  # added to the seed of a source: other batches for what is grown from it, and for its pilots


class Stopped(Exception):
    """The time is over, or a signal came; the same command goes on."""


def tried(rates: list[float], run: Callable[[float], dict[str, Any]]) -> dict[float, dict[str, Any]]:
    """What runs came to, by rate: at the rates asked for and, if these are several, beyond them as long as the best is an
    outermost one, as far as that is from its neighbour, as a factor. run: what one comes to, its loss among others."""
    came: dict[float, dict[str, Any]] = {}
    while rates:
        came |= {rate: run(rate) for rate in rates}
        known = sorted(came)
        best = min(known, key=lambda rate: came[rate]["loss"])
        neighbours = {known[0]: known[1:2], known[-1]: known[-2:-1]}.get(best, [])
        rates = [float(f"{best * best / neighbour:.6g}") for neighbour in neighbours]
    return came


class Bench:
    """Where a grid is measured. work: its folder; books: one with train/ and val/; other: text of another kind, or a
    folder of it. due: called before each run, raises Stopped when no more should begin."""

    def __init__(self, grid: Grid, work: Path, books: Path, other: list[Path], due: Callable[[], None]):
        self.grid, self.work, self.due = grid, work, due
        self.said, self.train = grid.said, grid.said["train"]
        self.device = self.train.get("device", "auto")
        self.data, self.other = work / "data", work / "other"
        work.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            growkit.tokenize([books / "train"], self.data, train_tokenizer=self.said["vocabulary"], val=[books / "val"])
        if not self.other.exists():
            growkit.tokenize(other, self.other, tokenizer=self.data)
        bins = [self.data / "train.bin", self.data / "val.bin", self.other / "train.bin"]
        self.hash = "".join(file_hash(file)[:8] for file in bins)

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell came to, None where it is not measured. Raises RequestError for what others measured."""
        file = self.work / "results" / f"{cell.name}.json"
        if not file.exists():
            return None
        said = read_json(file)
        if said.get("made_by") != self.grid.made_by(cell, self.hash):
            raise RequestError(
                f"{str(file)!r} was made by another version of growkit, of other data or of other settings; name another"
                " --work, or delete it"
            )
        return said

    def measure(self, cell: Cell) -> dict[str, Any]:
        """Measure a cell, and keep its result: at the rate that pilots chose, or whole runs where there are none."""
        arm = arm_of(cell.arm)
        pilot = self.grid.pilot_of(cell)
        rate, pilots = self._rate(pilot) if pilot else (None, None)
        source = self._source(cell.size, arm, cell.base, cell.seed) if arm.source else None
        rates = [rate] if rate else self.said["rates"]["tried"]
        whole = tried(rates, lambda one: self._whole(cell, arm, one))
        best = min(whole, key=lambda one: whole[one]["loss"])
        result = {
            "made_by": self.grid.made_by(cell, self.hash),
            "growkit": growkit.__version__,
            "cell": asdict(cell),
            "rate": best,
            "whole": {str(one): ran["loss"] for one, ran in whole.items()},
            "source": source,
            "pilots": pilots,
            **whole[best],
        }
        (self.work / "results").mkdir(exist_ok=True)
        write_json(self.work / "results" / f"{cell.name}.json", result)
        return result

    def _whole(self, cell: Cell, arm: Arm, rate: float) -> dict[str, Any]:
        """What a cell comes to at a rate, in all its length."""
        folder = self.work / "cells" / f"{cell.name}.rate-{rate:g}"
        if not (folder / DONE).exists():
            ran = self._run(cell, arm, folder, rate, cell.seed + ORDER)
            loss = growkit.evaluate(
                folder / "run" / "final", self.other, split="train", context=self.train["seq_len"],
                limit=self.train["eval_tokens"], device=self.device,
            ).loss  # fmt: skip
            write_json(folder / DONE, {"other": loss, **ran})
            for rest in ("start", "deep", "probe", "run/checkpoints", "run/stages"):
                shutil.rmtree(folder / rest, ignore_errors=True)
        return dict(read_json(folder / DONE))

    def _steps(self, size: str, budget: float) -> int:
        """Steps of a budget in tokens per parameter of the target."""
        parameters = read_json(self._blank(size, "target") / DONE)["parameters"]
        return max(2, round(budget * parameters / (self.train["seq_len"] * self.train["batch_size"])))

    def _blank(self, size: str, model: str, seed: int = 0, **more: Any) -> Path:
        """A model of random weights, with the tokenizer."""
        name = ".".join([size, model, f"seed-{seed}", *(f"{key}-{value}" for key, value in more.items())])
        folder, config = self.work / "blank" / name, self.work / "blank" / f"{name}.config"
        if not (folder / DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            config.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.data / "tokenizer", config, dirs_exist_ok=True)
            (config / "config.json").write_text(json.dumps(self.grid.config(size, model, **more)))
            made = growkit.init(config, folder, seed=seed)
            write_json(folder / DONE, {"parameters": made.parameters})
        return folder

    def _source(self, size: str, arm: Arm, base: float, seed: int) -> dict[str, Any]:
        """What training an arm's source costs and comes to; its folder is told by _source_folder."""
        run = self._source_folder(size, arm, base, seed)
        if not (run / DONE).exists():
            assert arm.source is not None
            steps = self._steps(size, base)
            train = {"optimizer": arm.source_optimizer}
            points = self._pretrain(self._blank(size, arm.source, seed), run, steps, self.said["rates"]["source"], seed,
                                    train)  # fmt: skip
            write_json(run / DONE, {"model": arm.source, "steps": steps, **points[-1]})
        return read_json(run / DONE)

    def _source_folder(self, size: str, arm: Arm, base: float, seed: int) -> Path:
        return self.work / "sources" / f"{size}.{arm.source}.{arm.source_optimizer}.base-{base:g}.seed-{seed}"

    def _rate(self, cell: Cell) -> tuple[float, dict[str, Any]]:
        """The learning rate that pilots choose, short cells at each of a few rates, and what they came to."""
        arm, made_by = arm_of(cell.arm), self.grid.made_by(cell, self.hash)
        if arm.source:
            self._source(cell.size, arm, cell.base, cell.seed)

        def pilot(rate: float) -> dict[str, Any]:
            folder = self.work / "pilots" / f"{cell.name}.rate-{rate:g}"
            if not (folder / DONE).exists():
                point = self._run(cell, arm, folder, rate, PILOT)["curve"][-1]
                write_json(folder / DONE, {"made_by": made_by, **point})
            said = dict(read_json(folder / DONE))
            if said["made_by"] != made_by:
                raise RequestError(f"{str(folder)!r} is of other settings; name another --work, or delete it")
            return said

        came = tried(self.said["rates"]["tried"], pilot)
        best = min(came, key=lambda rate: came[rate]["loss"])
        spent = {way: sum(said[way] for said in came.values()) for way in ("flops", "seconds")}
        of = {"arm": cell.arm, "budget": cell.budget, "base": cell.base if arm.source else None}
        return best, {**of, "losses": {rate: said["loss"] for rate, said in came.items()}, **spent}

    def _run(self, cell: Cell, arm: Arm, folder: Path, rate: float, order: int) -> dict[str, Any]:
        """Make a cell's start and train it. order: the seed of its batches."""
        steps = self._steps(cell.size, cell.budget)
        start, spent = self._start(cell, arm, folder / "start", steps)
        train = dict(arm.train)
        if train.get("schedule") in DEEPENING:
            train["to_layers"] = self._layers(cell.size)
        if arm.relax is not None:
            train["multipliers"] = f"relax:{max(1, round(arm.relax * steps))}"
        own = {key: train[key] for key in ("optimizer", "multipliers") if key in train}
        probe = self._pretrain(start, folder / "probe", 1, 1e-12, order, own)  # a step that moves nothing
        if arm.inherits:
            train["teacher"] = self._source_folder(cell.size, arm, cell.base, cell.seed) / "final"
        read = {"flops": 0.0, "seconds": 0.0}  # what a step's share of a store came to
        if arm.stored:
            train["teacher"], read = self._store(cell, arm)
        curve = self._pretrain(start, folder / "run", steps, rate, order, train)
        taught = taught_steps(folder / "run") if arm.stored else set()
        for point in curve:  # a run counts the operations of its start, and of a live teacher, by itself
            reads = sum(step <= point["step"] for step in taught)
            point["seconds"] += spent.get("seconds", 0.0) + reads * read["seconds"]
            point["flops"] += reads * read["flops"]
        return {"steps": steps, "before": spent, "step0": probe[-1]["loss"], "loss": curve[-1]["loss"], "curve": curve}

    def _store(self, cell: Cell, arm: Arm) -> tuple[Path, dict[str, float]]:
        """What an arm's source says of all the data, and the FLOPs and seconds of as much as one step reads."""
        source = self._source_folder(cell.size, arm, cell.base, cell.seed)
        store, length = self.work / "stores" / source.name, self.train["seq_len"]
        clock, step = store.with_name(f"{store.name}.clock"), length * self.train["batch_size"]
        if not clock.exists():
            store.parent.mkdir(exist_ok=True)
            shutil.rmtree(store, ignore_errors=True)
            began = Clock.now(self.device)
            growkit.teach(source / "final", self.data, store, seq_len=length, device=self.device)
            clock.write_text(f"{Clock.now(self.device) - began}")
        blank = blank_model(open_source(source / "final"))
        blank.source.close()
        share = step / len(open_tokens(self.data))
        return store, {"flops": forward_flops(blank.model, step, length), "seconds": float(clock.read_text()) * share}

    def _start(self, cell: Cell, arm: Arm, out: Path, steps: int) -> tuple[Path, dict[str, float]]:
        """Where an arm begins, and the FLOPs and seconds that it took where maps learned."""
        if arm.start == "init":
            more = {"num_hidden_layers": arm.layers} if arm.layers else {}
            return self._blank(cell.size, "target", cell.seed, **more), {}
        if not out.exists():
            self._make_start(cell, arm, out, steps)
        return out, read_json(out.with_name(SPENT)) if arm.learn else {}

    def _make_start(self, cell: Cell, arm: Arm, out: Path, steps: int) -> None:
        """Grow an arm's source."""
        source = self._source_folder(cell.size, arm, cell.base, cell.seed) / "final"
        blank = self._blank(cell.size, "target", cell.seed)
        growth = dict(arm.grow)
        if arm.learn:
            batch = {key: self.train[key] for key in ("seq_len", "batch_size")}
            growth |= {"learn": max(1, round(arm.learn * steps)), "data": self.data, "device": self.device, **batch}
        began = Clock.now(self.device)
        partial = out.with_name("start.partial")
        growkit.grow(source, partial, like=blank, seed=cell.seed, force=True, **growth)
        if arm.learn:
            flops = read_json(partial / "growkit.json")["learned"]["flops"]
            write_json(out.with_name(SPENT), {"flops": flops, "seconds": Clock.now(self.device) - began})
        partial.rename(out)

    def _layers(self, size: str) -> int:
        return int(self.grid.config(size, "target")["num_hidden_layers"])

    def _pretrain(
        self, start: Path, run: Path, steps: int, rate: float, order: int, train: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Train, going on with what is there; the validations: step, loss, flops, seconds."""
        self.due()
        run.parent.mkdir(parents=True, exist_ok=True)
        clock = Clock(run.with_name(f"{run.name}.clock"), self.device)
        own = {key: value for key, value in self.train.items() if key != "evaluations"}
        done = growkit.pretrain(
            start, self.data, run, steps=steps, lr=rate, seed=order, resume="auto", watch=clock,
            eval_every=max(1, steps // self.train["evaluations"]), **own, **train,
        )  # fmt: skip
        if done.folder is None:
            raise Stopped
        return [
            {"step": point.step, "loss": point.loss, "flops": point.cost.flops,
             "seconds": clock.seconds.get(point.step, point.cost.seconds)}
            for point in read_run(run).val
        ]  # fmt: skip
