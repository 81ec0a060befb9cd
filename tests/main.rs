//! The promises, one file each, linked once: linking is what takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod a_bad_commit_is_rolled_back_and_held;
mod a_crash_anywhere_loses_nothing;
mod a_deleted_delivery_takes_its_objects_along;
mod a_large_delivery_keeps_its_inventory;
mod a_remote_repository_is_delivered;
mod a_rollback_is_complete;
mod a_strategy_changes_over_defaults;
mod an_autoscaler_takes_over;
mod arrows_point_one_way;
mod bad_input_is_told_and_loses_nothing;
mod bad_manifests_say_where;
mod cli_asks_the_daemon;
mod cli_diff_agrees_with_kubectl;
mod cli_needs_no_cluster;
mod cli_uninstall_leaves_what_runs;
mod cluster_apply;
mod cluster_shared;
mod cluster_watch;
mod drift_is_seen_named_and_mended;
mod image_root_runs_without_root;
mod install_runs_with_exactly_its_rights;
mod knowing_costs_nothing;
mod kustomize_and_settings_are_delivered;
mod kustomize_stays_inside_the_repository;
mod manifests_are_current;
mod nothing_is_half_applied;
mod objects_are_adopted_cleanly;
mod objects_go_in_order;
mod objects_that_left_git_are_pruned;
mod one_object_one_owner;
mod order_between_deliveries;
mod ownership;
mod real_manifests_render;
mod requests_are_counted;
mod roles_are_granted_within_bounds;
mod source_cache_survives;
mod source_local_commits_are_seen_at_once;
mod source_over_https_and_ssh;
mod source_references_and_history;
mod source_remote_that_hangs;
mod source_trees_without_checkout;
mod the_daemon_dies_at_every_step;
mod yaml_reads_as_kubectl;
