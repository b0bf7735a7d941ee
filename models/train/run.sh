#!/usr/bin/env bash
# Makes both embedded models from nothing but this directory and the seeds in it: tokenizer,
# corpus, training, evaluation and model cards. Usage: run.sh WORK_DIR [PYTHON]
# An interrupted run goes on where it was; delete WORK_DIR to start afresh.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
models="$(dirname "$here")"
work="${1:?usage: run.sh WORK_DIR [PYTHON]}"
python="${2:-python3}"
corpus_tokens=26000000
corpus_seed=7
export OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
mkdir -p "$work"
cd "$here"
"$python" make_configs.py "$models"
if [ ! -f "$work/data-short/weights.npy" ]; then
  "$python" make_tokenizer.py "$models/spark" "$models/spark-mini"
  "$python" make_data.py "$models/spark/tokenizer.json" "$work/data" "$corpus_tokens" "$corpus_seed"
  "$python" make_data.py "$models/spark/tokenizer.json" "$work/data-short" 18000000 8 short
fi
for name in spark spark-mini; do
  "$python" train.py "recipe-$name.json" "$work/data" "$models/$name" "$work/$name" \
    | tee -a "$work/$name.log"
  "$python" evaluate.py "$models/$name" "recipe-$name.json" "$work/$name.log" "$work/$name"
done
