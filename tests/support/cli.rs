//! Running our command line and kubectl as a person would.

use super::cluster::Space;
use std::path::Path;
use std::process::Command;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

fn run(mut command: Command, kubeconfig: &Path) -> Answer {
    let output = command.env("KUBECONFIG", kubeconfig).env_remove("WINDLASS_NAMESPACE").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// `windlass` against the cluster of a test.
pub fn windlass(space: &Space, arguments: &[&str]) -> Answer {
    windlass_with(&space.cluster.kubeconfig, arguments)
}

/// `windlass` with a kubeconfig.
pub fn windlass_with(kubeconfig: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(arguments);
    run(command, kubeconfig)
}

/// `kubectl` against the cluster of a test.
pub fn kubectl(space: &Space, arguments: &[&str]) -> Answer {
    kubectl_with(&space.cluster.kubeconfig, arguments)
}

/// `kubectl` with a kubeconfig.
pub fn kubectl_with(kubeconfig: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/testcluster"));
    command.arg("kubectl").args(arguments);
    run(command, kubeconfig)
}
