//! The promises, one file each, linked once: linking is what takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod bad_manifests_say_where;
mod cluster_apply;
mod kustomize_stays_inside_the_repository;
mod real_manifests_render;
mod yaml_reads_as_kubectl;
