//! Removal of names.

use crate::fs::state::tables::State;

/// Takes the name out of the directory. Drafts that are open for it go nowhere any more.
pub(crate) fn unlinked(state: &mut State, name: &str) {
    orphan_drafts(state, name, false);
    lose_name(state, name);
    state.touch(name);
}

/// Drafts of the file at `name` go nowhere any more.
pub(super) fn orphan_drafts(state: &mut State, name: &str, replaced: bool) {
    for id in state.paths.drafts(name) {
        let Some(draft) = state.drafts.get_mut(&id) else { continue };
        (draft.orphan, draft.replaced) = (true, replaced);
        if let Some(inode) = state.inodes.get_mut(&draft.ino) {
            inode.unlinked = true;
        }
    }
}

/// A key deleted by somebody else. A draft that is open for it stays: its publish finds out.
pub(crate) fn unlinked_elsewhere(state: &mut State, name: &str) {
    lose_name(state, name);
    for id in state.paths.drafts(name) {
        if let Some(draft) = state.drafts.get(&id).filter(|draft| !draft.orphan)
            && let Some(inode) = state.inodes.get_mut(&draft.ino)
        {
            inode.unlinked = false;
            state.paths.forget_lost(name, draft.ino);
        }
    }
}

fn lose_name(state: &mut State, name: &str) {
    if let Some(ino) = state.paths.current(name) {
        state.lose(ino);
        state.remove_name(name);
    }
    state.forget_home(name);
    state.end_file(name);
    state.note_change(name);
    state.paths.set_attributes(name, None);
    state.paths.set_failure(name, None);
}
