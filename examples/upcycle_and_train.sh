#!/usr/bin/env bash
# A trained model becomes a mixture of experts and trains on, beside the dense model itself on the same tokens: what more experts
# give at equal tokens and at equal operations, and whether all of them are used.
#
#     examples/upcycle_and_train.sh [GROWN [WORK]]    # a few minutes on 2 cores
#
# GROWN: the folder that examples/grow_and_train.sh made, whose small model and data are used; default ./grow-and-train. WORK: a
# folder to make, default ./upcycle-and-train; WORK/report holds the result. PYTHON: the interpreter that has growkit. STEPS: default 200.
set -euo pipefail

GROWN=${1:-grow-and-train}
WORK=${2:-upcycle-and-train}
PYTHON=${PYTHON:-python}
STEPS=${STEPS:-200}

growkit() {
    printf '\n\033[1m$ growkit %s\033[0m\n' "$*" >&2
    "$PYTHON" -m growkit "$@"
}

train() {  # CHECKPOINT RUN [OPTION...]
    growkit pretrain "$1" --data "$GROWN/data" --out "$2" --steps "$STEPS" "${@:3}" \
        --seq-len 128 --batch-size 16 --lr 5e-4 --warmup $((STEPS / 20 + 1)) --eval-every $((STEPS / 20 + 1)) --eval-tokens 20000
}

if [ ! -e "$GROWN/small-run/final" ]; then
    echo "$GROWN/small-run/final does not exist; run examples/grow_and_train.sh first, or name the folder that it made" >&2
    exit 2
fi
if [ -e "$WORK" ]; then
    echo "$WORK exists; remove it, or name another folder: $0 GROWN WORK" >&2
    exit 2
fi
mkdir -p "$WORK"

growkit upcycle "$GROWN/small-run/final" --experts 8 --top-k 2 --out "$WORK/copies-init"
growkit upcycle "$GROWN/small-run/final" --experts 8 --top-k 2 --diversity drop:0.5 --no-verify --out "$WORK/drop-init"
train "$GROWN/small-run/final" "$WORK/dense"
train "$WORK/copies-init" "$WORK/copies"
train "$WORK/copies-init" "$WORK/copies-unbalanced" --balance 0
train "$WORK/drop-init" "$WORK/drop"
growkit report "$WORK/dense" "$WORK/copies" "$WORK/copies-unbalanced" "$WORK/drop" --out "$WORK/report"
