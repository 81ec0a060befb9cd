//! What can be wrong about an Application, each with the field and what to do.

use std::fmt;

/// An Application that cannot be expanded, with all that is wrong about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The Application, such as `Application shop/web`.
    pub application: String,
    /// What is wrong; one at least.
    pub errors: Vec<ApplicationError>,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be expanded:", self.application)?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// Something that is wrong about an Application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplicationError {
    /// The document is none.
    #[error("apiVersion is {0:?}; windlass.dev/v1alpha1 is the only version of Application")]
    Version(String),
    /// A field that is not known.
    #[error("{path} is no field of an Application{}", did_you_mean(.nearest))]
    Unknown {
        /// The field.
        path: String,
        /// The known one that is most like it.
        nearest: Option<String>,
    },
    /// A field that has to be there.
    #[error("{path} is missing")]
    Missing {
        /// The field.
        path: String,
    },
    /// A value that the field cannot have.
    #[error("{path} {problem}")]
    Value {
        /// The field.
        path: String,
        /// What is wrong, as the end of a sentence.
        problem: String,
    },
    /// The name cannot be that of a Service.
    #[error(
        "metadata.name is \"{0}\", which is also the name of a Service: use lower-case letters, digits and -, at most 63, a \
         letter first"
    )]
    Name(String),
    /// Both ways to say ports.
    #[error(
        "spec.port and spec.ports are both given; put the one of spec.port into spec.ports as {{name: http, port: {port}}}"
    )]
    PortTwice {
        /// The number in `port`.
        port: i32,
    },
    /// Two ports are one.
    #[error(
        "{path} is {number}/{protocol} again; each port of the container, and of the Service, is there once"
    )]
    SamePort {
        /// The field.
        path: String,
        /// The number.
        number: i32,
        /// The transport.
        protocol: String,
    },
    /// Two ports have one name.
    #[error("{path} is \"{name}\" again; names of ports differ")]
    SameName {
        /// The field.
        path: String,
        /// The name.
        name: String,
    },
    /// Two variables have one name.
    #[error("{path} is {name} again; only one of them would count")]
    SameVariable {
        /// The field.
        path: String,
        /// The name.
        name: String,
    },
    /// A port is named that is none of the container's.
    #[error("{path} is {port}, and {}", among(.known))]
    NoSuchPort {
        /// The field.
        path: String,
        /// What it says.
        port: String,
        /// The ports that there are.
        known: Vec<String>,
    },
    /// Something needs a port, and there is none.
    #[error("{path} needs a port; give spec.port the number that the container listens on")]
    NoPort {
        /// The field.
        path: String,
    },
    /// A probe that does nothing, or several things.
    #[error("{path} needs one of httpGet, tcpSocket, grpc and exec{hint}")]
    Action {
        /// The field.
        path: String,
        /// What else it may do.
        hint: &'static str,
    },
    /// One of several has to be there.
    #[error("{path} takes one of {choices}")]
    OneOf {
        /// The field.
        path: String,
        /// What there is to choose from, in words.
        choices: &'static str,
    },
    /// The autoscaler's bounds are the wrong way round.
    #[error(
        "spec.autoscaling.minReplicas is {min}, which is more than maxReplicas, {max}; minReplicas can be {max} at most"
    )]
    Bounds {
        /// At least so many.
        min: i32,
        /// At most so many.
        max: i32,
    },
    /// A percentage of nothing.
    #[error(
        "{path} is in percent of what a pod asks for, and spec.resources.requests has no {resource}; the autoscaler would do \
         nothing"
    )]
    NoRequest {
        /// The field.
        path: String,
        /// What a pod has to ask for.
        resource: &'static str,
    },
    /// More is set aside than can be had.
    #[error("{path} is {request}, which is more than the limit, {limit}")]
    AboveLimit {
        /// The field.
        path: String,
        /// What is set aside.
        request: String,
        /// What can be had at most.
        limit: String,
    },
    /// No pod could be replaced.
    #[error(
        "spec.rollingUpdate: with maxSurge and maxUnavailable both 0 no pod could ever be replaced; let one of them be 1"
    )]
    Stuck,
    /// Root, and not root.
    #[error(
        "spec.security.runAsUser is 0, which is root, and runAsNonRoot refuses that; set runAsNonRoot: false too, or another user"
    )]
    Root,
    /// A capability that gives all others.
    #[error(
        "spec.security.capabilities.add has {0}, with which a process can gain any privilege; set allowPrivilegeEscalation: true \
         too, or leave it out"
    )]
    Escalation(String),
    /// Annotations of an account that is somebody else's.
    #[error(
        "spec.security.serviceAccount.annotations are for an account that is made; set create: true, or leave them out"
    )]
    Annotations,
    /// What is hashed, and that something is, go together.
    #[error(
        "spec.traffic: loadBalancer: consistentHash needs consistentHash: {{header: NAME}}, and no other takes it"
    )]
    Hash,
    /// A try that may take longer than all of them.
    #[error("spec.traffic.retries.perTryTimeout is {each}, which is more than spec.traffic.timeout, {whole}")]
    Try {
        /// Of one try.
        each: String,
        /// Of all.
        whole: String,
    },
    /// How a change reaches traffic cannot be read.
    #[error("{0}")]
    Rollout(String),
    /// A share of one pod.
    #[error(
        "spec.rollout: a canary by replica counts takes its share in pods, and {field} is 1; give it two at least, or another router"
    )]
    OnePod {
        /// The field that says how many pods there are.
        field: &'static str,
    },
    /// Two things are mounted in one place.
    #[error("{path} is {place}, where something else is mounted")]
    SamePlace {
        /// The field.
        path: String,
        /// The directory.
        place: String,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

fn among(known: &[String]) -> String {
    match known {
        [] => "there are no ports; give spec.port".into(),
        known => format!("the ports are {}", known.join(", ")),
    }
}
