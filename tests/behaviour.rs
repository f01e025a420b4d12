//! How files behave, checked through two doors: the directory without a kernel, and mounts of the built binary, of each
//! kind of store.
#![allow(clippy::unwrap_used, missing_docs)]

mod clients;
mod conflicts;
mod directories;
pub(crate) mod door;
pub(crate) mod in_process;
pub(crate) mod kernel;
mod limits;
mod names;
mod naming;
mod quota;
mod reading;
mod scratch;
pub(crate) mod sys;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use kvfs::fs::document::Validate;
use kvfs::store::{PrefectCloudSettings, PrefectCloudStore, PrefectSettings, PrefectStore, Store};

use crate::common;
use crate::common::etcd;
use crate::common::prefect;
use crate::common::serve as server;
use common::Mount;
use door::Door;
use in_process::InProcess;
use kernel::Mounted;

/// Upper bound for whatever is waited for.
const PATIENCE: Duration = crate::common::PATIENCE;

/// Waits for what follows a call without being part of it: a release, a change made by another client.
#[track_caller]
fn eventually(condition: impl FnMut() -> bool) {
    common::wait_for(PATIENCE, condition);
}

/// What the store has for `key`, where the door lets another client see it.
#[track_caller]
fn stored_is(door: &dyn Door, key: &str, text: Option<&str>) {
    if let Some(client) = door.store() {
        let stored = client.get(key).map(|stored| String::from_utf8(stored).unwrap());
        if client.keeps_bytes {
            assert_eq!(stored.as_deref(), text, "stored for {key:?}");
        } else {
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(stored.as_deref().map(value), text.map(value), "stored for {key:?}");
        }
    }
}

#[allow(clippy::unnecessary_wraps, reason = "mounts may be impossible")]
fn without_a_kernel() -> Option<InProcess> {
    Some(InProcess::new(Validate::Json).tended())
}

fn on_memory() -> Option<Mounted> {
    common::can_mount().then(|| Mounted::memory(&[]))
}

fn on_sqlite() -> Option<Mounted> {
    common::can_mount().then(|| Mounted::sqlite(&[]))
}

fn in_a_directory() -> Option<Mounted> {
    common::can_mount().then(|| Mounted::sqlite(&["--separator", "/"]).below("some/directory/"))
}

fn on_prefect_cloud() -> Option<Mounted> {
    Mounted::served(false, || {
        let server = common::can_mount().then(server::Server::memory)?;
        let mount = Mount::prefect_cloud(&server.address, server::KEY, &[]);
        let settings = PrefectCloudSettings {
            url: format!("http://{}", server.address),
            key: Some(server::KEY.to_owned()),
            key_from: "the test",
            key_source: None,
            tenant: None,
        };
        let store: Arc<dyn Store> = Arc::new(PrefectCloudStore::open(&settings, PATIENCE).unwrap());
        Some((server, mount, store))
    })
}

fn on_prefect() -> Option<Mounted> {
    Mounted::served(false, || {
        let server = common::can_mount().then(prefect::Server::fresh)??;
        let mount = Mount::prefect(&server.address, &prefect::PATIENT);
        let settings = PrefectSettings { url: server.url(), ..PrefectSettings::default() };
        let store: Arc<dyn Store> = Arc::new(PrefectStore::open(&settings, PATIENCE).unwrap());
        Some((server, mount, store))
    })
}

fn on_etcd() -> Option<Mounted> {
    Mounted::served(true, || {
        let cluster = common::can_mount().then(etcd::Shared::usual)??;
        let store = cluster.argument();
        let mount = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &prefect::PATIENT);
        let location = kvfs::store::Location::parse(Some(&store), std::path::Path::new("/")).unwrap();
        let (store, _) = kvfs::store::open(&location, PATIENCE).unwrap();
        Some((cluster, mount, store))
    })
}

/// Tests that call each case with a fresh door.
macro_rules! tests {
    ($when:ident $door:ident: $($file:ident { $($case:ident)+ })+) => {
        mod $door {
            $(mod $file {
                $(case! { $when $case {
                    if let Some(door) = crate::behaviour::$door() {
                        crate::behaviour::$file::$case(&door);
                    }
                } })+
            })+
        }
    };
}

macro_rules! every_case {
    ($when:ident $door:ident $($more:tt)*) => {
        tests! {
            $when $door:
            writing {
                the_write_that_completes_it_publishes_a_new_file
                a_new_file_without_content_stays_local
                a_file_without_content_can_be_removed_again
                others_read_the_old_value_until_the_document_is_complete
                a_new_key_is_never_read_half_written
                an_exclusive_create_refuses_a_key_that_exists
                appended_bytes_go_to_the_end_wherever_the_position_is
                an_open_that_truncates_and_writes_nothing_keeps_the_value
                a_file_that_is_cut_is_judged_at_its_close_by_what_is_left
                a_file_that_is_cut_by_name_has_what_is_left_at_once_or_its_old_value
                what_is_unsaved_takes_the_place_of_what_its_process_cuts_by_name
                a_new_file_cannot_be_cut_by_name_to_what_is_no_document
                a_file_cut_to_nothing_and_written_anew_is_published
                a_longer_value_overwritten_by_a_shorter_one_can_be_cut
                bytes_in_the_middle_can_be_replaced
                a_hole_reads_as_zeros_and_is_no_json_until_it_is_filled
                text_that_can_be_no_document_is_refused_by_the_write
                half_a_document_is_refused_by_close_and_kept
                a_new_file_whose_text_is_refused_is_gone_with_its_close
                a_file_that_was_made_empty_stays_where_a_text_is_refused
                a_new_file_that_is_emptied_again_stays
                a_file_that_is_made_anew_and_emptied_again_stays_empty
                who_reads_a_new_file_that_is_refused_reads_nothing
                a_handle_stays_failed_after_a_failed_write
                fsync_publishes_and_the_writer_goes_on
                fsync_sets_a_document_over_a_longer_text_that_is_yet_to_be_cut
                a_name_leads_to_what_was_synced_while_its_creator_writes_on
                a_failure_after_an_fsync_leaves_what_was_synced
                opening_for_writing_and_closing_changes_nothing
                a_mode_is_kept_across_versions
                fsync_through_a_reader_tells_of_the_last_text
                a_new_file_does_not_inherit_the_failure_of_one_that_was_renamed
                a_rename_onto_a_file_settles_its_failure
            }
            reading {
                a_reader_keeps_its_version_and_the_next_one_sees_the_new
                every_reader_keeps_the_version_it_opened
                a_reader_keeps_its_version_of_a_removed_key
                a_reader_keeps_its_version_of_a_renamed_and_of_a_replaced_key
                a_reader_of_a_temporary_file_goes_on_when_it_becomes_a_key
                a_reader_of_a_new_file_sees_it_empty_also_when_it_is_set
                size_and_time_are_true_before_the_first_open
                the_listing_shows_each_file_once
                a_reader_cannot_write
                reads_end_at_the_end
                a_draft_given_up_leaves_readers_alone
                a_file_that_one_of_its_writers_published_is_listed
            }
            limits {
                ten_thousand_bytes_and_a_newline_fit
                one_byte_more_is_refused_by_the_write
                a_positioned_write_past_the_limit_writes_nothing
                an_append_past_the_limit_is_refused
                truncate_past_the_limit_is_refused
                a_file_grown_to_the_limit_and_filled_is_published
                a_large_value_written_in_pieces_arrives_whole
            }
            naming {
                a_removed_key_is_gone
                a_writer_of_a_removed_key_publishes_nothing
                a_removed_new_file_goes_nowhere_and_the_name_is_free
                a_removed_open_file_takes_any_bytes
                rename_replaces_and_takes_the_name_away
                rename_that_must_not_replace_does_not
                rename_of_what_is_not_there_or_onto_itself_changes_nothing
                a_writer_goes_on_under_the_new_name
                a_new_file_can_be_renamed_before_it_is_closed
                an_empty_file_moves_but_replaces_no_value
                the_last_name_decides_after_many_renames
                the_new_name_leads_to_what_its_writer_published
                names_that_no_key_can_have_are_refused
            }
            scratch {
                scratch_files_take_any_bytes_and_are_never_sent
                a_temporary_file_renamed_onto_a_key_is_its_new_value
                a_scratch_file_without_a_document_replaces_no_key
                a_scratch_file_renamed_onto_a_new_name_is_a_key
                fsync_of_a_temporary_file_makes_it_a_key
                a_key_is_never_absent_while_its_backup_is_made
                the_successor_of_a_backup_is_found_by_who_writes_it
                a_backup_can_be_moved_back
                a_key_that_was_renamed_to_a_backup_keeps_its_name_from_nobody
                a_successor_that_fails_leaves_the_key_to_its_readers
                scratch_files_are_bounded_however_they_grow
                temporary_files_without_a_name_are_bounded_too
            }
            conflicts {
                of_two_writers_that_truncate_the_last_to_write_wins
                a_change_based_on_an_old_value_is_stale_and_its_text_is_kept
                descriptors_of_one_process_share_what_they_write
                of_those_that_share_nothing_the_last_close_wins
                who_wrote_a_text_that_cannot_be_hears_of_it_at_his_close
                writers_of_a_new_file_share_it_until_it_is_a_key
                a_conflict_can_be_settled_by_a_new_attempt
                a_rename_does_not_hide_that_a_change_is_stale
            }
            $($more)*
        }
    };
}

macro_rules! every_case_and_another_client {
    ($when:ident $door:ident $($more:tt)*) => {
        every_case! {
            $when $door
            clients {
                another_clients_set_is_seen_by_the_next_open
                another_clients_delete_is_seen_by_the_next_open
                a_change_of_a_key_that_another_client_set_is_stale
                a_change_of_a_key_that_another_client_deleted_is_stale
                a_truncating_writer_overwrites_another_clients_set
                an_exclusive_create_loses_against_another_client
                a_new_file_that_is_still_empty_gives_way_to_another_clients_key
                a_temporary_file_that_stays_becomes_a_key
                a_key_with_a_temporary_name_is_a_key
                a_key_set_while_an_empty_file_is_held_open_is_shown_afterwards
                text_appended_to_a_new_file_does_not_replace_another_clients_key
                a_rename_that_must_not_replace_loses_against_another_client
                a_renamed_key_shows_what_another_client_set_just_before
            }
            $($more)*
        }
    };
}

/// Where any text is a key ("Where stores differ" in docs/semantics.md).
macro_rules! every_case_and_any_name {
    ($when:ident $door:ident) => {
        every_case_and_another_client! {
            $when $door
            names {
                odd_names_are_listed_once
                a_key_called_as_a_backup_is_a_key
                a_backup_without_a_successor_is_a_key
            }
        }
    };
}

#[test]
fn an_open_that_was_sent_to_look_again_leaves_the_next_one_alone() {
    let door = InProcess::new(Validate::Json);
    let files: &dyn Door = &door;
    files.save("k", "[1]").unwrap();
    let reader = files.reader("k");
    let writer = files.open("k", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    files.write_all(writer, b"[1,2,3]").unwrap();
    door.remember("k");
    assert_eq!(files.close(writer), Ok(()));
    assert_eq!(files.text("k"), "[1,2,3]");
    let writer = files.open("k", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(files.fstat(writer).unwrap().size, 0);
    assert_eq!(files.stat("k").unwrap().size, 7);
    files.write_all(writer, b"[4]").unwrap();
    assert_eq!(files.close(writer), Ok(()));
    assert_eq!(files.text("k"), "[4]");
    assert_eq!(files.contents(reader).unwrap(), b"[1]");
}

/// What differs from store to store, if anything does.
macro_rules! smoke {
    ($door:ident $($more:tt)*) => {
        tests! {
            always $door:
            writing {
                the_write_that_completes_it_publishes_a_new_file
                others_read_the_old_value_until_the_document_is_complete
                text_that_can_be_no_document_is_refused_by_the_write
                half_a_document_is_refused_by_close_and_kept
                fsync_publishes_and_the_writer_goes_on
                fsync_sets_a_document_over_a_longer_text_that_is_yet_to_be_cut
                bytes_in_the_middle_can_be_replaced
            }
            reading {
                a_reader_keeps_its_version_and_the_next_one_sees_the_new
                size_and_time_are_true_before_the_first_open
                the_listing_shows_each_file_once
            }
            limits {
                ten_thousand_bytes_and_a_newline_fit
                one_byte_more_is_refused_by_the_write
            }
            naming {
                a_removed_key_is_gone
                rename_replaces_and_takes_the_name_away
                rename_that_must_not_replace_does_not
            }
            scratch {
                a_temporary_file_renamed_onto_a_key_is_its_new_value
                a_key_is_never_absent_while_its_backup_is_made
            }
            conflicts {
                a_change_based_on_an_old_value_is_stale_and_its_text_is_kept
            }
            $($more)*
        }
    };
}

macro_rules! smoke_and_another_client {
    ($door:ident) => {
        smoke! {
            $door
            clients {
                another_clients_set_is_seen_by_the_next_open
                another_clients_delete_is_seen_by_the_next_open
                a_change_of_a_key_that_another_client_set_is_stale
                an_exclusive_create_loses_against_another_client
            }
        }
    };
}

every_case_and_any_name!(always without_a_kernel);
every_case_and_any_name!(always on_sqlite);
every_case_and_any_name!(always in_a_directory);

mod smoke {
    smoke!(on_memory);
    smoke_and_another_client!(on_etcd);
    smoke_and_another_client!(on_prefect_cloud);
    smoke_and_another_client!(on_prefect);
}

every_case!(full on_memory);
every_case_and_any_name!(full on_etcd);
every_case_and_any_name!(full on_prefect_cloud);
every_case_and_another_client!(full on_prefect);
