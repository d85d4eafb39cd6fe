//! How two types differ, for an error: their descriptions, and of long ones the first place where they part.

/// Descriptions that together are no longer than this are told in one line.
const SHORT_BYTES_MAX: usize = 160;
/// What is told of a long description.
const TOLD_BYTES_MAX: usize = 2_000;
/// What is told of the part of it in which it differs.
const PART_BYTES_MAX: usize = 80;

/// The error's text for what was made as one type, and is opened as another.
pub(crate) fn of_types(what: &str, made: &str, wanted: &str) -> String {
    const ADVICE: &str =
        "open it with the type that it was made with, or, if that has changed since, shut its manager down, or use a new name";
    if made.len() + wanted.len() <= SHORT_BYTES_MAX {
        return format!("{what} was made as {made}, not as {wanted}: {ADVICE}");
    }
    let (place, made_part, wanted_part) = first(made, wanted);
    let (made, wanted) = (cut(made, TOLD_BYTES_MAX), cut(wanted, TOLD_BYTES_MAX));
    format!(
        "{what} was made as another type: {place}it has {made_part}, not {wanted_part}; {ADVICE}.\nIt was made as\n    {made}\nnot as\n    {wanted}"
    )
}

/// Where two descriptions part (`at Order.price `, or nothing if that is at their beginning), and what each has there.
fn first(made: &str, wanted: &str) -> (String, String, String) {
    let common: usize = made.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    // A word that begins alike differs as a whole.
    let goes_on = |text: &str| text[common..].starts_with(is_word);
    let start = if goes_on(made) || goes_on(wanted) { made[..common].trim_end_matches(is_word).len() } else { common };
    let ends_with_comma = made[start..].starts_with(',') || wanted[start..].starts_with(',');
    let path = path(&made[..start], ends_with_comma);
    let place = if path.is_empty() { path } else { format!("at {path} ") };
    (place, part(&made[start..]), part(&wanted[start..]))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that lead to where the beginning of a description ends, joined by dots: of types, variants and fields. `is_complete`: what stands
/// last is at its end.
fn path(text: &str, is_complete: bool) -> String {
    // For each bracket that is open: what stands before it, and the field in it that is described.
    let mut open: Vec<(&str, &str)> = Vec::new();
    let (mut word, mut named, mut field) = ("", "", "");
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end > 0 {
            // (The parameters of a generic type stand between its name and its fields.)
            if matches!(word, "struct" | "enum") || named.is_empty() {
                named = &rest[..end];
            }
            word = &rest[..end];
            rest = &rest[end..];
            continue;
        }
        match c {
            '{' => {
                open.push((named, field));
                (named, field) = ("", "");
            }
            '(' => {
                open.push((word, field));
                (named, field) = ("", "");
            }
            '}' | ')' => (named, field) = open.pop().unwrap_or_default(),
            ':' => (field, named) = (word, ""),
            ',' => (field, named) = ("", ""),
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
    }
    // A field's name says more than that of its type.
    let outer = open.into_iter().map(|(name, field)| if field.is_empty() { name } else { field });
    let inner = if is_complete { "" } else { field };
    outer.chain([inner]).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
}

/// The part that begins here, to where it ends.
fn part(text: &str) -> String {
    let mut depth = 0usize;
    let text = text.trim_start_matches([',', ' ']);
    let end = text.find(|c: char| {
        match c {
            '{' | '(' | '<' | '[' => depth += 1,
            '}' | ')' | '>' | ']' | ',' | ';' if depth == 0 => return true,
            '}' | ')' | '>' | ']' => depth -= 1,
            _ => {}
        }
        false
    });
    match &text[..end.unwrap_or(text.len())] {
        "" => "nothing more".to_owned(),
        part => cut(part.trim(), PART_BYTES_MAX),
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(bytes_max)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_where_types_part_is_named() {
        for (made, wanted, place, has, not) in [
            ("List<u8>", "List<u16>", "", "u8", "u16"),
            ("struct Order {id: u64, price: u32}", "struct Order {id: u64, price: u64}", "at Order.price ", "u32", "u64"),
            (
                "Dict<String, struct A {b: struct B<u8> {c: u8}}>",
                "Dict<String, struct A {b: struct B<u8> {c: i8}}>",
                "at A.b.c ",
                "u8",
                "i8",
            ),
            ("struct A {b: u8}", "struct A {b: u8, c: u8}", "at A ", "nothing more", "c: u8"),
            ("enum E {A, B(u8,)}", "enum E {A, B(u16,)}", "at E.B ", "u8", "u16"),
            ("struct A {b: Vec<(u8, u8,)>}", "struct A {b: Vec<(u8, Vec<u8>,)>}", "at A.b ", "u8", "Vec<u8>"),
            ("struct A {before: u8}", "struct A {behind: u8}", "at A ", "before: u8", "behind: u8"),
            ("struct \u{e4} {\u{e4}: u8}", "struct \u{e4} {\u{e4}: i8}", "at \u{e4}.\u{e4} ", "u8", "i8"),
            ("", "Lock", "", "nothing more", "Lock"),
            // What no description looks like, as somebody may have scribbled there.
            (")}>,:(", ")}>,:{", "", "(", "{"),
        ] {
            assert_eq!(first(made, wanted), (place.to_owned(), has.to_owned(), not.to_owned()), "{made} / {wanted}");
        }
    }

    #[test]
    fn what_is_told_is_bounded() {
        let long = |end: &str| format!("struct A {{{}{end}}}", "\u{e4}: u8, ".repeat(10_000));
        let text = of_types("it", &long("z: u8"), &long(&"y".repeat(10_000)));
        assert!(
            text.len() < 2 * TOLD_BYTES_MAX + 500 && text.starts_with("it was made as another type: at A it has z: u8, not yyy"),
            "{text}"
        );
    }
}
