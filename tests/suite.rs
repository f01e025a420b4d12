//! The conformance suite. `conformance!(fresh)` makes one test of each promise, where `fresh` is a function that
//! returns a [`Fresh`] store. `conformance!(fresh, attributes)` is for one that keeps owner, mode and times, too;
//! `conformance!(fresh, bytes)` leaves out ids that outlive a rename, `conformance!(fresh, json)` what only a store of
//! bytes promises, and the feed, too.

pub(crate) mod attributes;
pub(crate) mod concurrency;
pub(crate) mod expect;
pub(crate) mod feed;
pub(crate) mod keys;
pub(crate) mod rename;
pub(crate) mod renames;
pub(crate) mod values;
pub(crate) mod versions;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{Entry, Error, Expect, Key, Meta, Result, Revision, Store};

/// A test that hangs is ended after this long; nothing here measures time.
pub(crate) const PATIENCE: Duration = crate::common::PATIENCE;

macro_rules! conformance {
    ($fresh:expr, attributes) => {
        conformance! { $fresh }
        conformance! { $fresh, elsewhere =>
            attributes::attributes_are_kept_with_the_key,
            attributes::a_set_keeps_attributes_but_its_time_is_its_own,
            attributes::a_rename_takes_attributes_along,
            attributes::a_change_of_attributes_is_told,
            attributes::attributes_are_kept_of_prefixes,
            attributes::a_rename_takes_those_of_a_prefix_along,
        }
    };
    ($fresh:expr) => {
        conformance! { $fresh, bytes }
        conformance! { $fresh =>
            versions::the_id_stays_until_the_key_is_deleted,
            rename::a_rename_moves_value_id_and_creation_time,
            rename::a_rename_onto_a_key_replaces_it,
        }
    };
    ($fresh:expr, bytes) => {
        conformance! { $fresh, json }
        conformance! { $fresh =>
            values::an_overwrite_replaces_the_whole_value,
            values::bytes_come_back_exactly,
            versions::the_id_stays_across_overwrites,
            rename::a_rename_moves_the_value,
            rename::a_rename_onto_a_key_replaces_its_value,
            renames::all_keys_are_renamed,
            renames::no_key_is_renamed_if_a_source_has_changed,
            renames::no_key_is_renamed_if_a_target_exists,
            renames::no_key_is_renamed_if_one_is_named_twice,
        }
        conformance! { $fresh, elsewhere =>
            feed::each_change_is_told,
            feed::a_rename_is_told_at_both_ends,
            feed::renames_of_many_keys_are_told_at_both_ends,
            feed::a_key_renamed_to_itself_is_told_as_set,
            feed::a_burst_is_told_in_order_and_to_its_end,
            feed::changes_made_here_do_not_hide_those_made_elsewhere,
            feed::every_follower_is_told,
            feed::only_what_changed_since_the_start_is_told,
            feed::a_refused_change_is_not_told,
            feed::the_feed_ends_with_the_store,
        }
    };
    ($fresh:expr, json) => {
        conformance! { $fresh =>
            values::a_set_key_is_got_and_listed,
            values::a_deleted_key_is_gone,
            values::a_missing_key_is_not_found,
            values::a_value_at_the_limit_is_kept,
            values::a_value_over_the_limit_is_refused_and_changes_nothing,
            keys::any_text_is_a_key,
            keys::keys_that_look_alike_are_different,
            keys::a_key_at_the_limit_is_kept,
            keys::a_key_over_the_limit_is_refused_and_changes_nothing,
            keys::the_listing_is_complete_sorted_by_bytes_and_true,
            versions::revisions_grow_across_the_store,
            versions::modified_grows_and_created_stays,
            versions::versions_set_at_once_differ_in_revision_and_time,
            expect::absent_sets_only_a_new_key,
            expect::at_sets_only_the_version_it_names,
            expect::a_delete_obeys_its_expectation,
            expect::a_rename_obeys_its_expectation,
            rename::a_rename_to_itself_keeps_the_key,
            rename::a_missing_source_leaves_the_target_alone,
            renames::one_key_is_renamed_by_any_store,
            concurrency::setters_of_different_keys_all_arrive,
            concurrency::no_update_of_a_counter_is_lost,
            concurrency::one_of_many_creators_wins,
            concurrency::a_reader_sees_whole_versions_only,
            concurrency::a_renamed_key_is_never_missing,
        }
    };
    ($fresh:expr, elsewhere => $($file:ident::$check:ident,)*) => {
        $(
            #[test]
            fn $check() {
                $crate::suite::run_with_elsewhere($fresh(), $crate::suite::$file::$check);
            }
        )*
    };
    ($fresh:expr => $($file:ident::$check:ident,)*) => {
        $(
            #[test]
            fn $check() {
                $crate::suite::run($fresh(), $crate::suite::$file::$check);
            }
        )*
    };
}

/// An empty store, another door to its keys as another process has it, and the directory they live in.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) elsewhere: Arc<dyn Store>,
    /// Whatever must live as long as the store.
    pub(crate) home: Option<Box<dyn Any>>,
}

/// Runs a check; nothing if there is no store to be had.
pub(crate) fn run<F: Future<Output = ()>>(fresh: impl Into<Option<Fresh>>, check: impl FnOnce(Bench) -> F) {
    run_with_elsewhere(fresh, |at, _| check(at));
}

pub(crate) fn run_with_elsewhere<F: Future<Output = ()>>(
    fresh: impl Into<Option<Fresh>>,
    check: impl FnOnce(Bench, Bench) -> F,
) {
    let Some(Fresh { store, elsewhere, home }) = fresh.into() else { return };
    block_on(check(Bench(store), Bench(elsewhere)));
    drop(home);
}

/// Runs `future` to its end on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, future).await.expect("the store answers before patience runs out")
    })
}

/// A store, spoken to in short words.
#[derive(Clone)]
pub(crate) struct Bench(pub(crate) Arc<dyn Store>);

impl Bench {
    pub(crate) async fn set(&self, key: &str, text: impl AsRef<[u8]>) -> Meta {
        self.try_set(key, text, Expect::Anything).await.unwrap()
    }

    pub(crate) async fn try_set(&self, key: &str, text: impl AsRef<[u8]>, expect: Expect) -> Result<Meta> {
        self.0.set_key_value(&Key::from(key), Arc::from(text.as_ref()), expect).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Entry> {
        self.0.get_key_value(&Key::from(key)).await
    }

    pub(crate) async fn text(&self, key: &str) -> Vec<u8> {
        self.get(key).await.unwrap().text.to_vec()
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<Revision> {
        self.try_delete(key, Expect::Anything).await
    }

    pub(crate) async fn try_delete(&self, key: &str, expect: Expect) -> Result<Revision> {
        self.0.delete_key(&Key::from(key), expect).await
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<Meta> {
        self.try_rename(from, to, Expect::Anything).await
    }

    pub(crate) async fn try_rename(&self, from: &str, to: &str, expect: Expect) -> Result<Meta> {
        self.0.rename_key(&Key::from(from), &Key::from(to), Expect::Anything, expect).await
    }

    pub(crate) async fn list(&self) -> Vec<(String, Meta)> {
        let listing = self.0.list_keys().await.unwrap();
        listing.into_iter().map(|(key, meta)| (key.as_str().to_owned(), meta)).collect()
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        self.list().await.into_iter().map(|(key, _)| key).collect()
    }

    pub(crate) async fn is_missing(&self, key: &str) -> bool {
        self.get(key).await == Err(Error::NotFound)
    }

    /// All keys with what `get` says of them: what a change that was refused must leave as it was.
    pub(crate) async fn everything(&self) -> Vec<(String, Entry)> {
        let mut all = Vec::new();
        for (key, meta) in self.list().await {
            let entry = self.get(&key).await.unwrap();
            assert_eq!(meta, entry.meta, "{key:?}: get and list disagree");
            all.push((key, entry));
        }
        all
    }
}
