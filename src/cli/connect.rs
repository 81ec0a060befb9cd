//! The options that say which cluster and which installation is meant.

use crate::cluster::{ConnectError, ConnectOptions, Connection};
use clap::Args;
use std::path::PathBuf;

/// The namespace of an installation when none is given.
pub const HOME: &str = "windlass-system";

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// Path of the kubeconfig; KUBECONFIG or ~/.kube/config when not given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig instead of its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl ClusterArgs {
    /// Connects as kubectl would.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        Connection::open(&ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            concurrency: None,
        })
        .await
    }
}
