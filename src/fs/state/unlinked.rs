//! Removal of names.

use crate::fs::state::tables::State;

/// Takes the name out of the directory. Drafts that are open for it go nowhere any more.
pub(crate) fn unlinked(state: &mut State, name: &str) {
    let State { inodes, drafts, .. } = state;
    for draft in drafts.values_mut() {
        if let Some(inode) = inodes.get_mut(&draft.ino).filter(|inode| inode.name == name) {
            draft.orphan = true;
            inode.unlinked = true;
        }
    }
    if let Some(ino) = state.names.get(name).copied() {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.unlinked = true;
        }
        state.remove_name(name);
    }
    state.note_change(name);
    state.overrides.remove(name);
    state.unpublished.remove(name);
    state.touch(name);
}
