//! Many watches cost few connections: a tenant more is no connection more for each kind that it has.

use crate::support::cluster::{SOON, Space, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use windlass::cluster::named::NamedWatches;
use windlass::cluster::{ConnectOptions, Connection, Discovery, NamedObject};
use windlass::core::manifest::Gvk;

/// Three connections full, to see that no watch waits for room on the first.
const WATCHES: usize = 250;

/// Passes bytes on to a server, and counts the connections that are open.
async fn counted(server: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let (server, count) = (server.clone(), count.clone());
            tokio::spawn(async move {
                let Ok(mut there) = TcpStream::connect(server).await else { return };
                count.fetch_add(1, Ordering::Relaxed);
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                count.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (address, open)
}

#[tokio::test]
async fn hundreds_of_watches_are_a_few_connections_and_each_sees() {
    let space = Space::new("streams").await;
    let server = space.connection.server.trim_start_matches("https://").to_owned();
    let (address, open) = counted(server.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = std::fs::read_to_string(&space.cluster.kubeconfig).unwrap();
    std::fs::write(&kubeconfig, text.replace(&server, &address)).unwrap();
    let options = ConnectOptions { kubeconfig: Some(kubeconfig), ..ConnectOptions::default() };
    let connection = Connection::open(&options).await.unwrap();
    let discovery = Discovery::new(connection.client.clone());
    discovery.refresh().await.unwrap();

    let watches = NamedWatches::new(&connection, &discovery);
    let woken = Arc::new(AtomicUsize::new(0));
    let named: Vec<_> = (0..WATCHES)
        .map(|n| {
            let object = NamedObject {
                account: None,
                gvk: Gvk::new("v1", "ConfigMap"),
                namespace: space.name.clone(),
                name: format!("it-{n}"),
            };
            let woken = woken.clone();
            let named = watches.ensure(&object, move || {
                woken.fetch_add(1, Ordering::Relaxed);
            });
            named.note(None);
            named
        })
        .collect();
    wait_until("all watches are open", SOON, async || {
        let counts = connection.counters.snapshot();
        let watching = counts.get(&("watch", "2xx")).copied().unwrap_or(0);
        if watching >= WATCHES as u64 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    // What lists were asked with stays open for a while, to be used again.
    let connections = open.load(Ordering::Relaxed);
    assert!(connections < WATCHES / 4, "{connections} connections for {WATCHES} watches");

    for n in 0..WATCHES {
        let map = serde_json::json!({"metadata": {"name": format!("it-{n}")}});
        space.send("POST", &space.path("v1", "configmaps"), &map).await;
    }
    wait_until("each watch has seen its object", SOON, async || {
        let seen = woken.load(Ordering::Relaxed);
        // Once more for a watch that had to begin again.
        if seen >= WATCHES && named.iter().all(|n| n.is_outdated()) { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
}
