#!/usr/bin/env bash
# fuzz/run.sh SECONDS [TARGET...]: runs each fuzz target for so long, one after the other; a new
# machine gets cargo-fuzz installed first. What a target finds is left in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# The instrumentation is stable Rust's own; without a sanitizer (slotway has no unsafe code, so
# there is nothing for one to find) no nightly toolchain is needed.
fuzz() { cargo fuzz "$1" --sanitizer none "${@:2}"; }

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
fuzz build
for target in "${targets[@]}"; do
    printf '\n==> %s\n' "$target"
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target" # plans has no seeds
    seeds=("fuzz/seeds/$target")
    [ "$target" != topology ] || seeds+=(src/cluster/captured)
    dict=()
    [ ! -f "fuzz/dict/$target" ] || dict=("-dict=fuzz/dict/$target")
    fuzz run "$target" "fuzz/corpus/$target" "${seeds[@]}" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=1 "${dict[@]}"
done
