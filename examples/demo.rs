//! The demo: a deployment, a change, a bad commit that is rolled back and held, drift with its author, and a removal,
//! on a real Kubernetes control plane. Every command is shown before its output.
//!
//! With `--real`, on a real node with a real proxy: a canary that passes, and one that is rolled back, under traffic.
//!
//! `cargo run --release --example demo [-- --keep] [-- --real] [-- --use-current-cluster]`

#[path = "demo/real.rs"]
mod real;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;
use windlass::cluster::{ConnectOptions, Connection};

/// Set for the processes that stand for the `windlass` binary: the demo's own executable holds the same code.
const ACT: &str = "WINDLASS_DEMO_ACTS_AS_WINDLASS";

/// The namespace of the installation that the demo makes.
const HOME: &str = "windlass-demo";

/// The namespace that it delivers to: the name of the directory.
const SHOP: &str = "shop";

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(180);

fn main() -> anyhow::Result<()> {
    if std::env::var_os(ACT).is_some() {
        use clap::Parser;
        std::process::exit(windlass::cli::main(windlass::cli::Cli::parse()));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = arguments
        .iter()
        .find(|a| !["--keep", "--real", "--use-current-cluster", "--yes"].contains(&a.as_str()))
    {
        bail!("unknown argument {unknown}; there are --keep, --real, --use-current-cluster and --yes");
    }
    let has = |name: &str| arguments.iter().any(|a| a == name);
    if has("--real") && has("--use-current-cluster") {
        bail!("--real starts a cluster of its own; take one of --real and --use-current-cluster");
    }
    let mut demo = Demo::prepare(has("--use-current-cluster"), has("--real"), has("--yes"))?;
    let result = if has("--real") { real::show(&mut demo) } else { demo.show() };
    if let Err(error) = &result {
        println!("\nthe demo failed: {error:#}\n--- the daemon's log\n{}", demo.log());
    } else if has("--keep") {
        demo.keep()?;
    }
    let left = demo.stop();
    result.and(left)
}

/// Says what will be touched in the cluster of the kubeconfig, and refuses where that is somebody's already.
fn touched(runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let kubectl = Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).status();
    if !kubectl.is_ok_and(|s| s.success()) {
        bail!("kubectl is not on the PATH; the demo shows what it finds with it");
    }
    runtime.block_on(async {
        let connection = Connection::open(&ConnectOptions::default()).await?;
        say(&format!(
            "This uses the cluster of your kubeconfig:\n  context  {}\n  server   {}\n\
             It will touch this, and nothing else:\n  \
             CustomResourceDefinitions of windlass.dev, made and removed\n  \
             namespace {HOME}: a Repository, a Delivery, a Lease, a Secret with a key; made and removed\n  \
             namespace {SHOP}: a Deployment of two pods (registry.k8s.io/pause), a Service, two ConfigMaps; made and removed\n\
             The daemon runs on this machine, as you.",
            connection.context.as_deref().unwrap_or("(in cluster)"),
            connection.server
        ));
        let spaces: kube::Api<Namespace> = kube::Api::all(connection.client.clone());
        for name in [HOME, SHOP] {
            if spaces.get_opt(name).await.context("the cluster cannot be asked")?.is_some() {
                bail!("the namespace {name} is there already, and the demo would remove it; nothing was done");
            }
        }
        let definitions: kube::Api<CustomResourceDefinition> = kube::Api::all(connection.client.clone());
        if definitions.get_opt("deliveries.windlass.dev").await?.is_some() {
            bail!(
                "Windlass is in this cluster already, and the demo would get in its way; nothing was done. Take another \
                 cluster, or none: without --use-current-cluster the demo starts its own"
            );
        }
        Ok(())
    })
}

struct Demo {
    interrupted: Arc<AtomicBool>,
    scratch: tempfile::TempDir,
    kubeconfig: Option<PathBuf>,
    kubectl: Vec<String>,
    cluster: Option<Child>,
    daemon: Option<Child>,
    runtime: tokio::runtime::Runtime,
}

impl Demo {
    fn prepare(current: bool, real: bool, yes: bool) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut cluster = None;
        let mut kubeconfig = None;
        let mut kubectl = vec!["kubectl".to_owned()];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        if current {
            touched(&runtime)?;
            if !yes {
                print!("Go on? [y/N] ");
                std::io::stdout().flush()?;
                let mut line = String::new();
                std::io::stdin().lock().read_line(&mut line)?;
                if !matches!(line.trim(), "y" | "Y" | "yes") {
                    bail!("nothing was done");
                }
            }
        } else {
            say(if real {
                "This runs a real Kubernetes cluster of one node on this machine, in namespaces of its own, with Envoy and \
                 Prometheus. It takes root on Linux. The first run builds it from source, which takes minutes and some gigabytes \
                 of Go's cache; the next run takes seconds, and nothing is left of it."
            } else {
                "This runs a real Kubernetes control plane on this machine (etcd, API server, controllers, scheduler; the nodes and \
                 pods are simulated). The first run builds it from source, which takes minutes and some gigabytes of Go's cache; the \
                 next run takes seconds. Nothing outside of this directory and Go's cache is touched."
            });
            let built = root.join("target/cluster");
            let status = Command::new(root.join("tests/cluster/build.sh"))
                .arg(&built)
                .args(real.then_some("real"))
                .status()
                .context("the test cluster cannot be built; Go 1.26 is needed")?;
            if !status.success() {
                bail!("the test cluster could not be built");
            }
            let binary = built.join("testcluster");
            if real {
                real::check(&binary)?;
            }
            let dir = scratch.path().join("cluster");
            let mut child = Command::new(&binary)
                .arg("run")
                .args(real.then_some("--real"))
                .arg("--dir")
                .arg(&dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut line = String::new();
            let out = child.stdout.take().context("no output")?;
            BufReader::new(out).read_line(&mut line)?;
            let path = line.strip_prefix("ready ").map(str::trim);
            kubeconfig = Some(PathBuf::from(path.context("the test cluster did not start")?));
            kubectl = vec![binary.to_string_lossy().into_owned(), "kubectl".into()];
            cluster = Some(child);
        }
        // What was begun is taken away also when somebody ends the demo early.
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        runtime.spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Ok(Demo { interrupted, scratch, kubeconfig, kubectl, cluster, daemon: None, runtime })
    }

    fn show(&mut self) -> anyhow::Result<()> {
        title("A config repository");
        say("A bare repository stands for your Git server; `work` is your clone of it.");
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config/apps");
        self.quietly("git", &["init", "-q", "--bare", "-b", "main", "config.git"], ".")?;
        self.quietly("git", &["clone", "-q", "config.git", "work"], ".")?;
        copy(&files, &self.scratch.path().join("work/apps"))?;
        self.run("ls apps/shop", "work")?;
        self.commit("Ada", "Shop: first version")?;

        title("1. The first deployment");
        say("The daemon says what it would do, and then does it.");
        let before = Instant::now();
        self.start()?;
        self.wait(Phase::Ready)?;
        say(&format!("Ready {:.1} s after the daemon was started.", before.elapsed().as_secs_f32()));
        self.windlass("status")?;
        self.kubectl_shown("get deployment,service,configmap -n shop -l windlass.dev/delivery")?;

        title("2. A change, by push");
        self.edit("apps/shop/settings.yaml", "hello", "good morning")?;
        self.edit("apps/shop/web.yaml", "pause:3.9", "pause:3.10")?;
        let commit = self.commit("Ada", "Shop: a friendlier greeting")?;
        let before = Instant::now();
        self.wait_commit(Phase::Ready, &commit)?;
        say(&format!("Ready {:.1} s after the push.", before.elapsed().as_secs_f32()));
        self.windlass("history shop")?;

        title("3. A bad push");
        say("Bob's commit changes a setting, adds an object, and names an image that does not exist.");
        self.edit("apps/shop/settings.yaml", "good morning", "good evening")?;
        self.edit("apps/shop/web.yaml", "pause:3.10", "pause:missing")?;
        self.write(
            "apps/shop/extra.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {a: b}\n",
        )?;
        let commit = self.commit("Bob", "Shop: good evening")?;
        let before = Instant::now();
        self.wait_commit(Phase::Held, &commit)?;
        say(&format!(
            "Held {:.1} s after the push: the whole commit was taken back, the setting and the added object too. It is not tried \
             again until somebody changes these files or releases it.",
            before.elapsed().as_secs_f32()
        ));
        self.windlass("status")?;
        self.kubectl_shown("get configmap -n shop -l windlass.dev/delivery")?;
        self.kubectl_shown("get configmap web -n shop -o jsonpath={.data}")?;
        say("\nBob mends it.");
        self.edit("apps/shop/web.yaml", "pause:missing", "pause:3.10")?;
        let commit = self.commit("Bob", "Shop: an image that exists")?;
        self.wait_commit(Phase::Ready, &commit)?;
        self.windlass("status")?;

        title("4. A hand edit");
        say("Somebody edits the cluster. In this directory drift is only reported (windlass.yaml says so).");
        self.kubectl_shown(
            "set image -n shop deployment/web web=registry.k8s.io/pause:3.8 --field-manager=carol",
        )?;
        self.wait_drift(1)?;
        self.windlass("drift shop")?;
        say("Now the directory says that drift is to be corrected.");
        self.edit("apps/shop/windlass.yaml", "mode: Report", "mode: Correct")?;
        self.commit("Ada", "Shop: correct drift")?;
        self.wait_drift(0)?;
        self.kubectl_shown(
            "get deployment web -n shop -o jsonpath={.spec.template.spec.containers[0].image}",
        )?;
        println!();
        self.windlass("drift shop")?;

        title("5. A removal");
        say("What leaves Git leaves the cluster, after the rest is healthy.");
        std::fs::remove_file(self.scratch.path().join("work/apps/shop/extra.yaml"))?;
        let commit = self.commit("Ada", "Shop: no extra")?;
        self.wait_commit(Phase::Ready, &commit)?;
        self.kubectl_shown("get configmap -n shop -l windlass.dev/delivery")?;
        say(
            "Not shown here: canaries and blue-green switches. `cargo run --release --example demo -- --real` shows two \
             canaries under traffic, and docs/rollouts/README.md says how to have one.",
        );
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let repo = self.scratch.path().join("config.git");
        println!("$ windlass run --repo config.git --path 'apps/*' --create-namespaces --yes");
        let log = std::fs::File::create(self.scratch.path().join("daemon.log"))?;
        let mut child = self
            .windlass_command()?
            .args(["run", "--path", "apps/*", "--create-namespaces", "--yes", "--namespace", HOME])
            .args(["--log-format", "text", "--repo"])
            .arg(&repo)
            .arg("--cache-dir")
            .arg(self.scratch.path().join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        self.daemon = Some(child);
        // What it says before it begins is shown; then it goes on in the background.
        for line in BufReader::new(out).lines() {
            let line = line?;
            println!("{line}");
            if line.starts_with("repository ") && line.ends_with(" applied") {
                break;
            }
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("daemon.log")).unwrap_or_default()
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        title("It goes on running");
        let kubeconfig = self.kubeconfig.as_ref().map(|k| k.display().to_string());
        if let Some(kubeconfig) = &kubeconfig {
            println!("export KUBECONFIG={kubeconfig}");
        }
        println!("{} get deliveries -A", self.kubectl.join(" "));
        println!("your clone: {}", self.scratch.path().join("work").display());
        println!("Push to it and look. Enter ends it all, and takes it away again.");
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Ok(())
    }

    /// Takes everything away again.
    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
            let _ = daemon.wait();
        }
        if let Some(mut cluster) = self.cluster.take() {
            // It ends itself when its standard input closes.
            drop(cluster.stdin.take());
            let _ = cluster.wait();
            return Ok(());
        }
        title("The end");
        let again = format!("windlass uninstall --namespace {HOME} --yes --delete-objects");
        let spaces = format!("delete namespace {SHOP} {HOME} --ignore-not-found");
        let left =
            || format!("something is left in the cluster; `{again}` and `kubectl {spaces}` take it away");
        let uninstalled = self.windlass(&again["windlass ".len()..]);
        self.kubectl_shown(&spaces).with_context(left)?;
        if !uninstalled.with_context(left)?.success() {
            bail!(left());
        }
        Ok(())
    }

    fn windlass_command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ACT, "1").env("NO_COLOR", "1");
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        Ok(command)
    }

    fn windlass(&self, arguments: &str) -> anyhow::Result<ExitStatus> {
        println!("\n$ windlass {arguments}");
        let output = self.windlass_command()?.args(arguments.split(' ')).output()?;
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(output.status)
    }

    fn kubectl_shown(&self, arguments: &str) -> anyhow::Result<()> {
        println!("\n$ kubectl {arguments}");
        let mut command = Command::new(&self.kubectl[0]);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let output = command.args(&self.kubectl[1..]).args(arguments.split(' ')).output()?;
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("kubectl failed");
        }
        Ok(())
    }

    fn run(&self, line: &str, within: &str) -> anyhow::Result<()> {
        println!("$ {line}");
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default();
        let status =
            Command::new(program).args(words).current_dir(self.scratch.path().join(within)).status()?;
        if !status.success() {
            bail!("{line} failed");
        }
        Ok(())
    }

    fn quietly(&self, program: &str, arguments: &[&str], within: &str) -> anyhow::Result<String> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.scratch.path().join(within))
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("{program} cannot be run"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn commit(&self, author: &str, subject: &str) -> anyhow::Result<String> {
        println!("\n$ git commit -am \"{subject}\" && git push        # by {author}");
        let mail = format!("user.email={}@example.com", author.to_lowercase());
        self.quietly("git", &["add", "--all"], "work")?;
        let name = format!("user.name={author}");
        self.quietly("git", &["-c", &name, "-c", &mail, "commit", "-q", "-m", subject], "work")?;
        let changed = self.quietly("git", &["show", "--stat=72", "--format=", "HEAD"], "work")?;
        println!("{changed}");
        self.quietly("git", &["push", "-q", "origin", "HEAD:main"], "work")?;
        self.quietly("git", &["rev-parse", "HEAD"], "work")
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.scratch.path().join("work").join(file), text)?)
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.scratch.path().join("work").join(file);
        let text = std::fs::read_to_string(&path)?;
        if !text.contains(from) {
            bail!("{file} does not hold {from}");
        }
        Ok(std::fs::write(path, text.replace(from, to))?)
    }

    fn wait(&self, phase: Phase) -> anyhow::Result<()> {
        self.wait_until(&format!("{phase:?}"), |d| d.status.as_ref().is_some_and(|s| s.phase == phase))
    }

    fn wait_commit(&self, phase: Phase, commit: &str) -> anyhow::Result<()> {
        self.wait_until(&format!("{phase:?} with {commit}"), |d| {
            d.status
                .as_ref()
                .is_some_and(|s| s.phase == phase && s.revision.as_ref().is_some_and(|r| r.ends_with(commit)))
        })
    }

    fn wait_drift(&self, objects: i64) -> anyhow::Result<()> {
        self.wait_until(&format!("{objects} drifted objects"), |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready && s.drift == Some(objects))
        })
    }

    fn wait_until(&self, what: &str, is: impl Fn(&Delivery) -> bool) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let options = ConnectOptions { kubeconfig: self.kubeconfig.clone(), ..ConnectOptions::default() };
            let connection = Connection::open(&options).await?;
            let api: kube::Api<Delivery> = kube::Api::namespaced(connection.client.clone(), HOME);
            let begin = Instant::now();
            while begin.elapsed() < LIMIT {
                if self.interrupted.load(Ordering::Relaxed) {
                    bail!("it was interrupted");
                }
                if api.get_opt("shop").await.ok().flatten().is_some_and(|d| is(&d)) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bail!("the Delivery shop is not {what} after {} s", LIMIT.as_secs())
        })
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn title(text: &str) {
    println!("\n\n=== {text} ===\n");
}

fn say(text: &str) {
    println!("{text}");
}
