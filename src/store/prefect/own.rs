//! Own changes whose events are still to come: those events are skipped.

use std::collections::VecDeque;

use serde_json::Value;

use crate::store::{Key, Text, json};

/// Most changes recorded; events of older ones are taken for those of others.
const MOST: usize = 1_024;

/// Own changes without an event so far, in their order.
#[derive(Default)]
pub(super) struct Own {
    changes: VecDeque<Change>,
    /// Changes are recorded only while events are followed.
    followed: bool,
}

struct Change {
    key: Key,
    /// `None` for a deletion.
    text: Option<Text>,
    /// Whether the server has acknowledged it.
    made: bool,
}

impl Change {
    fn is(&self, key: &Key, value: Option<&Value>) -> bool {
        let same = |text: &Text| value.is_some_and(|value| json::stands_for(text, value));
        self.key == *key && self.text.as_ref().map_or(value.is_none(), same)
    }
}

impl Own {
    /// Starts or stops to record changes.
    pub(super) fn follow(&mut self, followed: bool) {
        self.changes.clear();
        self.followed = followed;
    }

    /// Records a change that is about to be sent; its event may come before the answer.
    pub(super) fn begin(&mut self, key: &Key, text: Option<&Text>) {
        if !self.followed {
            return;
        }
        if self.changes.len() == MOST {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { key: key.clone(), text: text.cloned(), made: false });
    }

    /// Records the answer to the change that was begun last. One that failed, or may yet be made, is dropped: whether an event will
    /// come is not known.
    pub(super) fn end(&mut self, key: &Key, made: bool) {
        let last = self.changes.iter_mut().rfind(|change| change.key == *key && !change.made);
        if let Some(last) = last {
            last.made = made;
        }
        self.changes.retain(|change| change.made || change.key != *key);
    }

    /// Matches an event with a change. `Some` if it was made here; true if a later change of the same key is recorded, whose event
    /// is still to come.
    pub(super) fn take(&mut self, key: &Key, value: Option<&Value>) -> Option<bool> {
        let found = self.changes.iter().position(|change| change.is(key, value))?;
        let made = self.changes[found].made;
        // Events of one key come in the order of its changes: those before it are lost.
        let mut index = 0;
        self.changes.retain(|change| {
            index += 1;
            change.key != *key || index > found + 1
        });
        made.then(|| self.changes.iter().any(|change| change.key == *key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_once_by_its_value_and_in_order() {
        let (mut own, key) = (Own::default(), Key::from("k"));
        let make = |own: &mut Own, text: &str, made| {
            own.begin(&key, Some(&Text::from(text.as_bytes())));
            own.end(&key, made);
        };
        let event = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        make(&mut own, "1", true);
        assert_eq!(own.take(&key, Some(&event("1"))), None, "nothing is followed yet");
        own.follow(true);
        for text in ["1", "2.0", "3"] {
            make(&mut own, text, true);
        }
        make(&mut own, "4", false);
        assert_eq!(own.take(&Key::from("other"), Some(&event("2"))), None);
        assert_eq!(own.take(&key, Some(&event("2"))), Some(true));
        for text in ["1", "2", "4"] {
            assert_eq!(own.take(&key, Some(&event(text))), None, "{text}");
        }
        assert_eq!(own.take(&key, Some(&event("3"))), Some(false));
        own.begin(&key, None);
        assert_eq!(own.take(&key, None), None, "it is not known yet whether it was made");
        own.end(&key, true);
        for _ in 0..MOST {
            make(&mut own, "5", true);
        }
        assert_eq!(own.changes.len(), MOST);
    }
}
