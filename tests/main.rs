//! The promises, one file each, linked once: linking is what takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod a_bad_commit_is_rolled_back_and_held;
mod a_remote_repository_is_delivered;
mod an_autoscaler_takes_over;
mod bad_input_is_told_and_loses_nothing;
mod bad_manifests_say_where;
mod cli_asks_the_daemon;
mod cli_diff_agrees_with_kubectl;
mod cli_needs_no_cluster;
mod cli_uninstall_leaves_what_runs;
mod cluster_apply;
mod cluster_shared;
mod cluster_watch;
mod image_root_runs_without_root;
mod install_runs_with_exactly_its_rights;
mod kustomize_and_settings_are_delivered;
mod kustomize_stays_inside_the_repository;
mod manifests_are_current;
mod ownership;
mod real_manifests_render;
mod source_cache_survives;
mod source_local_commits_are_seen_at_once;
mod source_over_https_and_ssh;
mod source_references_and_history;
mod source_remote_that_hangs;
mod source_trees_without_checkout;
mod yaml_reads_as_kubectl;
