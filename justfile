# One-line names for the commands that people and .ci/run call. `just` lists them.

_default:
    @just --list

# A cluster of three nodes on this machine
dev *args:
    cargo run --release -- dev {{args}}

# The debug build that the end-to-end tests run
build:
    cargo build -p wingbeat

# Everything
test:
    tests/run

# The inner loop, under two minutes after a build
fast:
    tests/run fast

# End-to-end tests: all, or the files named (`just e2e chat.test.mjs`)
e2e *files: build
    cd tests/e2e && node --test --test-concurrency=1 --test-reporter=spec {{files}}

# Fresh seeds of the simulator (`just sim --seed 7` replays one)
sim *args=("--seed " + `date +%s` + " --for 60"):
    cargo run --release -p sim -- {{args}}

# Shows that the tests can fail: breaks the cores on purpose, one way after another
mutants *names:
    tests/mutants/run {{names}}

# Figures of a running node or cluster (`just bench fanout`)
bench *args="fanout":
    cargo run --release -- bench {{args}}

# The figures of presence, each beside its target (docs/PERFORMANCE.md); all, or some (`just bench-presence wire`)
bench-presence *cases:
    cargo bench -p presence --bench figures -- targets
    cargo bench -p wingbeat --features internals --bench presence -- {{cases}}

# The cost curves of docs/PERFORMANCE.md, and their charts
curves *names:
    cargo build --release
    WINGBEAT_BIN=target/release/wingbeat bench/curves {{names}}

lint:
    cargo clippy --workspace --all-targets -- -D warnings

fmt:
    cargo fmt --all

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# What a change must pass
ci:
    .ci/run
