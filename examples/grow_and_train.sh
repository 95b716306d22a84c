#!/usr/bin/env bash
# The main job end to end: train a small model, grow it wider and deeper as a study found best (docs/benchmarks.md), train on,
# and measure what that saved against a model of the grown size that was trained from scratch with as many steps.
#
#     examples/grow_and_train.sh [CORPUS [WORK]]      # a quarter of an hour on 2 cores, or less
#     SMALL=1 examples/grow_and_train.sh              # the same in about a minute, to see that everything runs
#     SOURCE_STEPS=200 STEPS=120 EVAL_EVERY=10 examples/grow_and_train.sh CORPUS    # shorter: the picture in the README
#
# CORPUS: a folder of text, or a file; default the embedded excerpt, which is little more than a test. WORK: a folder to make,
# default ./grow-and-train; WORK/report holds the result. PYTHON: the interpreter that has growkit, default python.
set -euo pipefail

HERE=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
CORPUS=${1:-$HERE/text/excerpt.txt}
WORK=${2:-grow-and-train}
PYTHON=${PYTHON:-python}

if [ "${SMALL:-0}" = 1 ]; then
    VOCABULARY=512 SEQ_LEN=32 BATCH=4
    HIDDEN=32 FFN=96 HEADS=4 KV_HEADS=2 LAYERS=2        # the source
    BIG_HIDDEN=64 BIG_LAYERS=4                          # what it grows to; heads and ffn follow
    SOURCE_STEPS=8 STEPS=8 EVAL_EVERY=2
    export OMP_NUM_THREADS=1                            # models as small as that only wait for a second thread
else
    VOCABULARY=2048 SEQ_LEN=128 BATCH=16
    HIDDEN=128 FFN=384 HEADS=4 KV_HEADS=2 LAYERS=3
    BIG_HIDDEN=256 BIG_LAYERS=6
    SOURCE_STEPS=${SOURCE_STEPS:-600} STEPS=${STEPS:-400} EVAL_EVERY=${EVAL_EVERY:-20}
fi
RATE=1e-3

growkit() {
    printf '\n\033[1m$ growkit %s\033[0m\n' "$*" >&2
    "$PYTHON" -m growkit "$@"
}

train() {  # CHECKPOINT RUN STEPS
    growkit pretrain "$1" --data "$WORK/data" --out "$2" --steps "$3" \
        --seq-len "$SEQ_LEN" --batch-size "$BATCH" --lr "$RATE" --warmup $(($3 / 10 + 1)) --eval-every "$EVAL_EVERY" --eval-tokens 20000
}

if [ ! -e "$CORPUS" ]; then
    echo "$CORPUS does not exist; name a folder of text, or a file" >&2
    exit 2
fi
if [ -e "$WORK" ]; then
    echo "$WORK exists; remove it, or name another folder: $0 CORPUS WORK" >&2
    exit 2
fi
mkdir -p "$WORK/small"

# 1. text to tokens, with a tokenizer of its own; what validates are whole documents, so a short file is cut into some first
if [ -f "$CORPUS" ] && [ "${CORPUS%.txt}" != "$CORPUS" ] && [ "$(wc -c < "$CORPUS")" -lt 4000000 ]; then
    mkdir "$WORK/text"
    split -a 5 -l 25 --additional-suffix .txt -- "$CORPUS" "$WORK/text/part-"
    CORPUS=$WORK/text
fi
growkit tokenize "$CORPUS" --train-tokenizer "$VOCABULARY" --out "$WORK/data" --val-fraction 0.05

# 2. a small model, with that tokenizer beside it, whose entry 0 ends a document
cp "$WORK"/data/tokenizer/* "$WORK/small/"
cat > "$WORK/small/config.json" <<END
{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "vocab_size": $VOCABULARY,
  "hidden_size": $HIDDEN,
  "intermediate_size": $FFN,
  "num_hidden_layers": $LAYERS,
  "num_attention_heads": $HEADS,
  "num_key_value_heads": $KV_HEADS,
  "max_position_embeddings": 256,
  "hidden_act": "silu",
  "initializer_range": 0.02,
  "rms_norm_eps": 1e-05,
  "tie_word_embeddings": true,
  "bos_token_id": 0,
  "eos_token_id": 0
}
END
growkit init "$WORK/small" --out "$WORK/small-init"
train "$WORK/small-init" "$WORK/small-run" "$SOURCE_STEPS"

# 3. grow it, and go on
growkit grow "$WORK/small-run/final" --hidden "$BIG_HIDDEN" --layers "$BIG_LAYERS" --method auto --depth auto --optimizer none \
    --no-verify --out "$WORK/grown-init"
train "$WORK/grown-init" "$WORK/grown" "$STEPS"

# 4. the same size from scratch, as many steps
growkit init "$WORK/grown-init" --out "$WORK/scratch-init"
train "$WORK/scratch-init" "$WORK/scratch" "$STEPS"

# 5. what did it save?
growkit report "$WORK/scratch" "$WORK/grown" --source "$WORK/small-run" --out "$WORK/report"
