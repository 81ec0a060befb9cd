# Daily commands. Each is a plain command or a script, so that `just` need not be there.

# list these
default:
    @just --list

# everything that has to hold before a change is merged
test:
    scripts/test.sh

# format, clippy, go vet, and cargo deny where it is installed
lint:
    scripts/lint.sh

# what Windlass does, shown on a real control plane
demo *arguments:
    cargo run --release --example demo -- {{arguments}}

# the figures that docs/ quotes
bench:
    cargo bench

# the documentation of the code, in a browser
docs:
    cargo doc --no-deps --document-private-items --open

# a control plane for hand use, in target/cluster/hand; stop it with `just cluster-down`
cluster:
    tests/cluster/build.sh target/cluster
    target/cluster/testcluster up --dir target/cluster/hand

# stop what `just cluster` started
cluster-down:
    target/cluster/testcluster down --dir target/cluster/hand

# the same with a real node, Envoy and Prometheus; as root on Linux; stop it with `just cluster-real-down`
cluster-real:
    tests/cluster/build.sh target/cluster real
    target/cluster/testcluster up --real --dir target/cluster/hand-real

# stop what `just cluster-real` started
cluster-real-down:
    target/cluster/testcluster down --real --dir target/cluster/hand-real

# write manifests/ anew from the Rust types
generate:
    UPDATE_MANIFESTS=1 cargo test --test promises -- manifests_are_current
