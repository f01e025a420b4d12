//! Everyday tools on real mounts: their exit codes, what they leave behind, and what reaches the store.
#![allow(missing_docs, clippy::unwrap_used)]

mod bench;
mod editors;
mod files;
mod locks;
mod names;
mod one_file;
mod scripting;
mod search;
mod sets;
mod shell;
mod terminal;

use crate::common;
use bench::{Bench, Calls, On, PATIENCE, Past, Ran};
use common::wait_for;

/// Tests that call each case on one kind of store.
macro_rules! tests {
    ($when:ident $module:ident $on:ident: $($room:ident { $($case:ident)+ })+) => {
        mod $module {
            $(mod $room {
                $(case! { $when $case {
                    crate::tools::$room::$case(crate::tools::On::$on);
                } })+
            })+
        }
    };
}

macro_rules! every_case {
    ($when:ident $module:ident $on:ident $($more:tt)*) => {
        tests! {
            $when $module $on:
            editors {
                vim_saves_with_one_set
                vim_saves_with_one_set_whatever_it_does_for_a_backup
                vim_saves_with_one_set_when_started_elsewhere
                vim_creates_a_key_with_one_set
                vim_shows_why_it_could_not_save_and_the_old_value_stays
                vim_keeps_the_old_value_whatever_it_does_for_a_backup
                vim_leaves_a_swap_file_only_while_it_runs
                nano_saves_with_one_set
                nano_shows_why_it_could_not_save_and_the_old_value_stays
                emacs_saves_with_one_set
                emacs_shows_why_it_could_not_save_and_the_old_value_stays
            }
            files {
                cp_publishes_once
                cp_reports_content_that_cannot_be_published
                cp_of_nothing_keeps_the_value
                cp_keeps_mode_and_time_when_asked
                cp_copies_a_directory_in_and_out
                install_publishes_once
                install_unlinks_a_key_before_it_writes_the_new_one
                mv_inside_renames_the_key
                mv_inside_replaces_a_key
                mv_without_clobbering_keeps_both_keys
                mv_from_another_filesystem_makes_a_key
                mv_from_another_filesystem_replaces_a_key
                mv_to_another_filesystem_deletes_the_key
                mv_of_a_bad_file_fails_and_the_old_value_is_back
                dd_publishes_once_and_writes_in_place
                a_gigabyte_is_refused_at_the_first_write
                small_blocks_are_refused_where_they_pass_the_limit
                truncate_publishes_a_document_and_nothing_else
                touch_sends_nothing
                modes_and_times_send_nothing
                rm_deletes_each_key_once
                there_are_no_links_and_directories_as_the_view_has_them
                tar_unpacks_each_key_with_one_set
                tar_packs_the_mount_without_complaint
                rsync_publishes_each_change_once
                rsync_in_place_publishes_once
                rsync_reports_content_that_cannot_be_published
            }
            locks {
                a_counter_locked_by_flock_on_itself_loses_nothing
                a_counter_locked_by_flock_on_a_lock_file_loses_nothing
                flock_excludes_others_until_it_is_released
                shared_flocks_live_together
                a_killed_holder_releases_its_flock
                fcntl_locks_exclude_others_by_range
                a_counter_locked_by_lockf_on_a_lock_file_loses_nothing
                a_counter_locked_by_lockf_on_itself_loses_nothing
                readers_in_a_crowd_of_writers_see_whole_values_and_none_waits_for_ever
                a_lock_on_an_old_version_of_a_renamed_key_is_released
            }
            scripting {
                sed_in_place_is_one_set
                sed_in_place_of_many_keys_is_one_set_each
                sed_in_place_that_makes_bad_json_fails_and_the_old_value_stays
                sed_keeps_a_backup_beside_the_key
                perl_in_place_publishes_once
                perl_writes_and_reports
                python_dumps_json_with_one_set
                python_hears_at_close_that_a_document_is_incomplete
                python_hears_at_fsync_that_a_document_is_incomplete
                tinydb_sets_once_what_it_syncs_before_it_cuts_off_the_rest
                python_edits_in_place_with_one_set
                python_replaces_a_key_by_a_temporary_file_with_one_set
                python_replaces_a_key_by_a_synced_temporary_file
                python_deletes_a_temporary_file_without_a_trace
                python_renames_keys
                python_copies_a_file_with_its_times
                python_reads_through_a_map
                python_writes_through_a_map_with_one_set
                python_writes_through_a_map_that_outlives_its_descriptor
                children_of_python_write_one_document_together
                jq_and_sponge_edit_a_key_with_one_set
                jq_and_mv_edit_a_key
                jq_onto_its_own_input_never_empties_the_key
                git_commits_a_copy
                git_uses_the_mount_as_its_work_tree
                git_cannot_put_its_repository_on_the_mount
            }
            search {
                stat_knows_the_size_before_the_first_read
                ls_lists_names_and_sizes
                ls_shows_when_a_key_was_written
                find_selects_by_size_name_and_type
                find_sees_no_empty_file
                grep_finds_text_in_every_key
                wc_counts_what_is_read
                du_adds_up_sizes
                df_shows_a_filesystem_with_room
                checksums_are_those_of_the_same_file_elsewhere
                diff_compares_keys
                head_and_tail_read_a_part
                dumps_and_filters_read_to_the_end
                a_missing_key_is_reported_as_missing
                reading_changes_nothing
                a_listing_in_progress_does_not_undo_changes
            }
            shell {
                echo_creates_a_key_with_one_set
                echo_replaces_a_value_with_one_set
                echo_of_invalid_json_fails_and_the_old_value_stays
                echo_of_invalid_json_to_a_new_key_fails_and_stores_nothing
                what_a_shell_could_not_publish_is_set_aside
                a_redirection_alone_keeps_the_value
                a_heredoc_is_one_set
                appending_white_space_is_one_set
                appending_a_second_document_fails_and_the_old_value_stays
                appending_to_a_number_makes_a_longer_number
                appending_to_a_new_name_creates_the_key
                a_subshell_of_programs_publishes_once
                a_group_of_builtins_and_programs_publishes_once
                programs_started_by_xargs_write_one_document_together
                xargs_writes_many_keys_in_parallel
                a_descriptor_that_stays_open_publishes_what_is_complete
                a_descriptor_opened_for_both_reads_the_value
                noclobber_protects_a_key
                tee_publishes_once
                tee_appends_with_one_set
                tee_reports_invalid_json
                a_value_over_the_limit_is_refused
                a_key_is_read_by_redirection_and_substitution
                a_glob_expands_to_the_keys
            }
            $($more)*
        }
    };
}

/// Where any text is a key ("Where stores differ" in docs/semantics.md).
macro_rules! every_case_and_any_name {
    ($when:ident $module:ident $on:ident) => {
        every_case! {
            $when $module $on
            names {
                shells_quote_names_with_spaces
                tools_find_names_with_spaces
                a_lock_file_with_a_dot_is_no_key
                a_new_version_with_a_dot_is_renamed_onto_its_key
            }
            sets {
                a_shell_sets_once
                a_copy_sets_once
                an_edit_sets_once
                a_program_sets_once
            }
        }
    };
}

/// A tool of each kind.
macro_rules! smoke {
    ($module:ident $on:ident) => {
        tests! {
            always $module $on:
            editors {
                vim_saves_with_one_set
                nano_saves_with_one_set
            }
            files {
                cp_publishes_once
                mv_inside_renames_the_key
                mv_from_another_filesystem_replaces_a_key
                mv_to_another_filesystem_deletes_the_key
            }
            locks {
                a_counter_locked_by_flock_on_itself_loses_nothing
            }
            scripting {
                sed_in_place_is_one_set
                python_dumps_json_with_one_set
                python_replaces_a_key_by_a_temporary_file_with_one_set
                jq_and_sponge_edit_a_key_with_one_set
            }
            search {
                ls_lists_names_and_sizes
                grep_finds_text_in_every_key
                a_missing_key_is_reported_as_missing
            }
            shell {
                echo_creates_a_key_with_one_set
                echo_replaces_a_value_with_one_set
                echo_of_invalid_json_fails_and_the_old_value_stays
                appending_white_space_is_one_set
                a_subshell_of_programs_publishes_once
                a_value_over_the_limit_is_refused
            }
        }
    };
}

every_case_and_any_name!(always local Local);

mod smoke {
    smoke!(on_etcd Etcd);
    smoke!(on_prefect_cloud PrefectCloud);
    smoke!(on_prefect Prefect);
}

every_case_and_any_name!(full on_etcd Etcd);
every_case_and_any_name!(full on_prefect_cloud PrefectCloud);
every_case!(full on_prefect Prefect);
