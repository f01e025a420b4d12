//! What a mistyped name was meant to be.

/// The one of `names` that was meant by `typed`, if one is near: a few letters away, or the only one that begins so.
pub(crate) fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let most = (typed.chars().count() / 3).max(1);
    let names: Vec<&str> = names.into_iter().collect();
    let away = |name: &str| strsim::damerau_levenshtein(&typed, &name.to_lowercase());
    let close = names.iter().copied().filter(|name| away(name) <= most).min_by_key(|name| away(name));
    let mut begun =
        names.iter().copied().filter(|name| typed.len() > 2 && name.to_lowercase().starts_with(&typed));
    close.or_else(|| begun.next().filter(|_| begun.next().is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_near_if_few_letters_differ_or_it_begins_so() {
        let names = ["status", "serve", "watch", "umount", "max-age", "max-stale"];
        let near = |typed| nearest(typed, names);
        assert_eq!(near("stauts"), Some("status"));
        assert_eq!(near("unmount"), Some("umount"));
        assert_eq!(near("WATCH"), Some("watch"));
        assert_eq!(near("stat"), Some("status"));
        assert_eq!(near("max_age"), Some("max-age"));
        assert_eq!(near("max"), None);
        assert_eq!(near("list"), None);
        assert_eq!(near(""), None);
    }
}
