//! The house rules that a machine can check: crate edges, modules that import downwards and the map of them, where `unsafe` may stand, sizes, words, heads, limits.
//!
//! Every rule is a function over text that returns what is wrong, and has a canary: a made-up input that it must object to. Code is
//! looked at without its comments and strings, so that only what is compiled counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most lines of a file, without its test modules.
const FILE_LINES_MAX: usize = 600;
/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Most lines of a module's head.
const HEAD_LINES_MAX: usize = 40;

/// Files that may hold `unsafe`, and how often the word stands there. A change here is a change to what must be proven.
const UNSAFE: &[(&str, usize)] = &[
    ("benches/compare/src/child.rs", 1),
    ("benches/compare/src/lmdb.rs", 1),
    ("benches/compare/src/rawlocks.rs", 7),
    ("ipc/src/fork.rs", 11),
    ("ipc/src/map.rs", 30),
    ("ipc/src/map/group.rs", 4),
    ("ipc/src/map/sealed.rs", 2),
    ("ipc/src/named.rs", 3),
    ("ipc/src/sys.rs", 23),
    ("ipc/src/sys/large.rs", 8),
    ("ipc/src/task.rs", 8),
    ("ipc/src/value/codec.rs", 19),
    ("ipc/src/value/native.rs", 1),
    ("ipc/src/value/reader.rs", 3),
    ("src/init.rs", 1),
];

/// Crates whose modules import downwards: of two modules, one of which is not within the other, at most one reaches the other.
const FLOORS: [&str; 6] = ["ipc/src", "manager/src", "proxy/src", "src", "macros/src", "benches/compare/src"];

/// Crates whose floors are tables in the map, and where their sources are.
const MAPPED: [(&str, &str); 5] = [
    ("ipc", "ipc/src"),
    ("manager", "manager/src"),
    ("proxy", "proxy/src"),
    ("commonhold", "src"),
    ("benches/compare", "benches/compare/src"),
];

/// The texts of the licence, which each crate is published with.
const LICENSES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Tests that may hold it: they fork, play the attacker, or look into a model's cells.
const UNSAFE_TESTS: &[&str] =
    &["ipc/tests/mortal/mod.rs", "ipc/tests/pin_model.rs", "tests/attack.rs", "tests/death.rs", "tests/idle.rs", "tests/support/mod.rs"];

/// Files that are no tests and may sleep: what they measure is that nothing happens meanwhile.
const MAY_SLEEP: [&str; 1] = ["benches/compare/src/situations.rs"];

/// Of our crates, which may depend on which.
const EDGES: [(&str, &[&str]); 5] = [
    ("ipc/Cargo.toml", &[]),
    ("macros/Cargo.toml", &[]),
    ("manager/Cargo.toml", &["commonhold-ipc"]),
    ("proxy/Cargo.toml", &["commonhold-ipc"]),
    ("Cargo.toml", &["commonhold-ipc", "commonhold-macros", "commonhold-manager", "commonhold-proxy"]),
];

// ---- Looking at source ----

/// Bytes of a string or character literal at the front, its prefix included; none if there is no such.
fn literal(rest: &str) -> Option<usize> {
    let quoted = |start: usize, quote: char| {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip_while(|(at, _)| *at < start) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => return Some(at + c.len_utf8()),
                _ => {}
            }
        }
        Some(rest.len())
    };
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix);
        after.is_some_and(|after| after.starts_with(['"', '\'']) || (prefix.ends_with('r') && after.starts_with('#')))
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let body = after[hashes..].strip_prefix('"')?;
        return Some(prefix.len() + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()));
    }
    if after.starts_with('"') {
        return quoted(prefix.len() + 1, '"');
    }
    // A lifetime has no quote behind its first character.
    let mut inside = after.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(prefix.len() + 1, '\''),
        _ => None,
    }
}

/// Bytes of a comment at the front; none if there is no such.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut at = rest.strip_prefix("/*").map(|_| 2)?;
    let mut depth = 1;
    while depth > 0 && at < rest.len() {
        let here = &rest[at..];
        let (step, change) = match () {
            () if here.starts_with("/*") => (2, 1),
            () if here.starts_with("*/") => (2, -1),
            () => (here.chars().next().map_or(1, char::len_utf8), 0),
        };
        (at, depth) = (at + step, depth + change);
    }
    Some(at)
}

/// The source with comments and literals blanked out; lines stay where they are.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let (mut rest, mut before) = (source, ' ');
    while let Some(next) = rest.chars().next() {
        // A letter before a quote is part of a name, not a prefix.
        let in_name = before.is_alphanumeric() || before == '_';
        let blank = comment(rest).or_else(|| if in_name && next != '"' { None } else { literal(rest) });
        let len = blank.unwrap_or(next.len_utf8());
        match blank {
            Some(_) => code.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push(next),
        }
        (before, rest) = (if blank.is_some() { ' ' } else { next }, &rest[len..]);
    }
    code
}

/// Names and keywords of a line, and where they stand.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty())
}

/// Which lines (from 0) are in a module for tests.
fn test_lines(code: &str) -> Vec<bool> {
    let lines: Vec<&str> = code.lines().collect();
    let mut within = vec![false; lines.len()];
    for start in 0..lines.len() {
        let attribute = lines[start].trim_start();
        if !attribute.starts_with("#[cfg(") || !names(attribute).any(|name| name == "test") || within[start] {
            continue;
        }
        let end = end_of_block(&lines, start);
        within[start..=end].fill(true);
    }
    within
}

/// The last line of the item that begins at a line: where its braces close, or its semicolon stands.
fn end_of_block(lines: &[&str], start: usize) -> usize {
    let mut depth = 0;
    for (at, line) in lines.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                return at;
            }
        }
    }
    lines.len() - 1
}

// ---- The rules ----

fn unsafe_words(source: &str) -> usize {
    code_of(source).lines().flat_map(names).filter(|name| *name == "unsafe").count()
}

/// Arguments for `unsafe` that cite no invariant of `docs/ARCHITECTURE.md`, or one that is not there.
fn check_arguments(path: &str, source: &str, architecture: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("// SAFETY:")) {
        let rest = lines[at + 1..].iter().take_while(|line| line.starts_with("//") && !line.starts_with("// SAFETY:"));
        let argument = std::iter::once(&lines[at]).chain(rest).copied().collect::<Vec<_>>().join(" ");
        let cited: Vec<&str> =
            argument.split("INV-").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("")).collect();
        if cited.is_empty() || cited.iter().any(|number| !architecture.contains(&format!("**INV-{number}. "))) {
            wrong.push(format!("{path}:{}: this argument cites no invariant that docs/ARCHITECTURE.md has", at + 1));
        }
    }
    wrong
}

fn check_unsafe(found: &BTreeMap<String, usize>, allowed: &[(&str, usize)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, count) in found {
        match allowed.iter().find(|(allowed, _)| allowed == path) {
            None => wrong.push(format!("{path}: {count} unsafe, which this file may not hold")),
            Some((_, expected)) if expected != count => wrong.push(format!("{path}: {count} unsafe, listed are {expected}")),
            Some(_) => {}
        }
    }
    let gone = allowed.iter().filter(|(path, _)| !found.contains_key(*path));
    wrong.extend(gone.map(|(path, _)| format!("{path}: is listed as holding unsafe and holds none")));
    wrong
}

fn check_sizes(path: &str, source: &str) -> Vec<String> {
    let code = code_of(source);
    let tests = test_lines(&code);
    let lines: Vec<&str> = code.lines().collect();
    let mut wrong = Vec::new();
    let production = tests.iter().filter(|test| !**test).count();
    if production > FILE_LINES_MAX {
        wrong.push(format!("{path}: {production} lines of production code, the most is {FILE_LINES_MAX}"));
    }
    for (start, line) in lines.iter().enumerate().filter(|(start, _)| !tests[*start]) {
        let mut words = names(line).skip_while(|word| *word != "fn").skip(1);
        let Some(name) = words.next().filter(|_| !line.trim_start().starts_with("type")) else { continue };
        let length = end_of_block(&lines, start) - start + 1;
        if length > FUNCTION_LINES_MAX {
            wrong.push(format!("{path}:{}: fn {name} has {length} lines, the most is {FUNCTION_LINES_MAX}", start + 1));
        }
    }
    wrong
}

fn check_head(path: &str, source: &str) -> Vec<String> {
    let mut lines = source.lines().skip_while(|line| line.starts_with("#![") || line.is_empty());
    let head = lines.by_ref().take_while(|line| line.starts_with("//!")).count();
    match head {
        0 => vec![format!("{path}: does not begin with //! and what it is for")],
        _ if head > HEAD_LINES_MAX => vec![format!("{path}: a head of {head} lines, the most is {HEAD_LINES_MAX}")],
        _ => Vec::new(),
    }
}

fn check_words(path: &str, source: &str, sleeps: bool) -> Vec<String> {
    let code = code_of(source);
    let tests = test_lines(&code);
    let mut wrong = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let packed: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        let macros = ["todo", "unimplemented", "dbg"]
            .iter()
            .filter(|name| names(&packed).any(|found| found == **name) && packed.contains(&format!("{name}!")));
        wrong.extend(macros.map(|name| format!("{path}:{}: {name}!", number + 1)));
        if !sleeps && !tests[number] && packed.contains("thread::sleep") {
            wrong.push(format!("{path}:{}: sleeps; wait for what it waits for", number + 1));
        }
    }
    wrong
}

/// Places on somebody's machine; put together here, so that this file does not hold them.
fn check_paths(path: &str, text: &str) -> Vec<String> {
    let roots = ["home", "root", "work", "Users", "mnt"].map(|name| format!("/{name}/"));
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let inside = |at: usize| line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~/}".contains(c));
        let hit = roots.iter().find(|root| line.match_indices(root.as_str()).any(|(at, _)| !inside(at)));
        wrong.extend(hit.map(|root| format!("{path}:{}: {root} is a place on one machine only", number + 1)));
    }
    wrong
}

fn check_limits(limits: &str, everything_else: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines: Vec<&str> = limits.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.trim_start().strip_prefix("pub const ").and_then(|rest| names(rest).next()) else { continue };
        if at == 0 || !lines[at - 1].trim_start().starts_with("///") {
            wrong.push(format!("{name}: a limit without a word on where it comes from"));
        }
        if !everything_else.iter().any(|code| code.lines().flat_map(names).any(|found| found == name)) {
            wrong.push(format!("{name}: a limit that nothing enforces"));
        }
    }
    wrong
}

fn check_edges(path: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let mut section = "";
    let mut wrong = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let counts = matches!(section, "[dependencies]" | "[build-dependencies]") || section.starts_with("[target");
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        // A dependency with a section of its own, or a line of the section of all.
        let name = line.strip_prefix("[dependencies.").map_or(name, |name| name.trim_end_matches(']'));
        let counts = counts || line.starts_with("[dependencies.");
        if counts && name.starts_with("commonhold") && !allowed.contains(&name) {
            wrong.push(format!("{path}: depends on {name}, allowed are {allowed:?}"));
        }
    }
    wrong
}

/// Which licences a crate lacks. For a licence's name, its text in the crate and in the repository is read; a file that there is not is empty.
fn check_licenses(crate_path: &str, read: impl Fn(&str) -> (String, String)) -> Vec<String> {
    let lacks = LICENSES.iter().filter(|name| {
        let (own, whole) = read(name);
        own.is_empty() || own != whole
    });
    lacks.map(|name| format!("{crate_path}: has no {name} like the repository's; link to that")).collect()
}

/// What a module names of its own crate: paths from the crate's root.
#[derive(Default)]
struct Named {
    /// By its `use` declarations.
    imported: Vec<String>,
    /// Elsewhere in its code.
    inline: Vec<String>,
}

/// The path of the module of a file, which is named from its crate's `src`.
fn module_of(file: &str) -> String {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("mod").map_or(path, |path| path.trim_end_matches('/'));
    if matches!(path, "lib" | "main") { String::new() } else { path.replace('/', "::") }
}

/// The paths that a `use` declaration's tree stands for.
fn leaves(tree: &str, before: &str, into: &mut Vec<String>) {
    let Some((head, inner)) = tree.split_once('{') else {
        // What it is called here does not count.
        return into.push(format!("{before}{}", tree.split_whitespace().next().unwrap_or_default()));
    };
    let before = format!("{before}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                leaves(inner[start..at].trim(), &before, into);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// A path from the crate's root, for what a module calls so. What is no module's of this crate stays below the module.
fn from_root(module: &str, path: &str) -> String {
    let mut parts: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    for part in path.split("::").map(str::trim) {
        match part {
            "crate" => parts.clear(),
            "super" => drop(parts.pop()),
            "self" | "*" | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("::")
}

/// What the code of a module names of its crate, tests left out.
fn named(module: &str, source: &str) -> Named {
    let code = code_of(source);
    let tests = test_lines(&code);
    let code: Vec<&str> = code.lines().zip(&tests).filter(|(_, test)| !**test).map(|(line, _)| line).collect();
    let mut found = Named::default();
    for statement in code.join("\n").split(';') {
        let begins = |at: &usize| !statement[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let at = statement.match_indices("use ").map(|(at, _)| at).filter(begins).last();
        let (code, tree) = at.map_or((statement, None), |at| (&statement[..at], Some(&statement[at + 4..])));
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let paths = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
        found.inline.extend(paths.map(|path| from_root(module, path)));
        let mut imported = Vec::new();
        tree.into_iter().for_each(|tree| leaves(tree, "", &mut imported));
        found.imported.extend(imported.iter().map(|path| from_root(module, path)));
    }
    found
}

/// The module that a path leads to: the one that has the name, and not one that only hands it on.
fn home<'a>(modules: &'a BTreeMap<String, Named>, path: &str, steps: u32) -> Option<&'a str> {
    let ends: Vec<usize> = [0].into_iter().chain(path.match_indices("::").map(|(at, _)| at)).chain([path.len()]).collect();
    let (end, module) = ends.into_iter().rev().find_map(|end| Some((end, modules.get_key_value(&path[..end])?)))?;
    let name = path[end..].split("::").nth(1);
    let handed_on = |to: &&String| name.is_some() && to.rsplit("::").next() == name && !to.starts_with(&path[..end + 2]);
    let below = |to: &&String| name.is_some() && to.rsplit("::").next() == name && to.len() > path.len();
    match module.1.imported.iter().find(|to| handed_on(to) || below(to)) {
        Some(to) if steps > 0 => home(modules, to, steps - 1),
        _ => Some(module.0),
    }
}

/// What each module of a crate reaches at once. Of a module and what is within it each may name the other: they are one thing.
fn arrows(modules: &BTreeMap<String, Named>) -> BTreeMap<&str, Vec<&str>> {
    let within = |inner: &str, outer: &str| outer.is_empty() || inner == outer || inner.starts_with(&format!("{outer}::"));
    let of = |module: &str, named: &Named| -> Vec<&str> {
        let homes = named.imported.iter().chain(&named.inline).filter_map(|path| home(modules, path, 8));
        homes.filter(|home| !within(home, module) && !within(module, home)).collect()
    };
    modules.iter().map(|(module, named)| (&module[..], of(module, named))).collect()
}

/// The circles among the modules of a crate.
fn circles(modules: &BTreeMap<String, Named>) -> Vec<Vec<&str>> {
    let arrows = arrows(modules);
    fn reached<'a>(arrows: &BTreeMap<&'a str, Vec<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(arrows[module].iter().copied().filter(|to| seen.insert(*to)));
        }
        seen
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|module| (*module, reached(&arrows, module))).collect();
    let circle = |module: &str| reached[module].iter().copied().filter(|to| reached[to].contains(module)).collect::<Vec<_>>();
    let circles: BTreeSet<Vec<&str>> = arrows.keys().map(|module| circle(module)).filter(|circle| !circle.is_empty()).collect();
    circles.into_iter().collect()
}

fn check_floors(crate_path: &str, modules: &BTreeMap<String, Named>) -> Vec<String> {
    circles(modules).into_iter().map(|circle| format!("{crate_path}: import each other: {}", circle.join(", "))).collect()
}

/// What of a crate's modules its table in the map, one floor a row from the bottom up, does not show as it is.
fn check_map(crate_name: &str, map: &str, modules: &BTreeMap<String, Named>) -> Vec<String> {
    let begin = format!("In `{crate_name}`, ");
    let begins = |line: &str| line.starts_with(&begin) && line.ends_with("from the bottom up:");
    let lines = map.lines().skip_while(|line| !begins(line)).skip(4).take_while(|line| line.starts_with('|'));
    let mut floors: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (floor, line) in lines.enumerate() {
        for module in line.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2) {
            if !modules.contains_key(module) {
                wrong.push(format!("{crate_name}: the map shows {module}, which there is not"));
            }
            if floors.insert(module, floor).is_some() {
                wrong.push(format!("{crate_name}: the map shows {module} twice"));
            }
        }
    }
    let all: BTreeSet<&str> = modules.keys().filter_map(|module| module.split("::").next()).filter(|module| !module.is_empty()).collect();
    wrong.extend(
        all.iter().filter(|module| !floors.contains_key(*module)).map(|module| format!("{crate_name}: {module} is not in the map")),
    );
    let floor = |module: &str| module.split("::").next().and_then(|top| floors.get(top).copied());
    for (module, to) in arrows(modules) {
        let up = to.into_iter().filter(|to| floor(module).zip(floor(to)).is_some_and(|(here, there)| there > here));
        wrong.extend(up.map(|to| format!("{crate_name}: {module} imports {to}, which the map shows above it")));
    }
    wrong
}

// ---- The repository ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository with one of these extensions, by its path from the root.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != ".git" {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)) {
                found.push((path.to_str().unwrap().to_owned(), std::fs::read_to_string(root().join(&path)).unwrap()));
            }
        }
    }
    assert!(found.len() > 3, "the repository is where this was built");
    found
}

/// Sources, but for the programs that are made to be refused by the compiler.
fn sources() -> Vec<(String, String)> {
    files(&["rs"]).into_iter().filter(|(path, _)| !path.starts_with("macros/tests/ui/")).collect()
}

/// The modules of a crate and what they name, tests left out.
fn modules_of(crate_path: &str, sources: &[(String, String)]) -> BTreeMap<String, Named> {
    let own = sources.iter().filter(|(path, _)| !is_test(path)).filter_map(|(path, source)| {
        let module = module_of(path.strip_prefix(crate_path)?.strip_prefix('/')?);
        Some((module.clone(), named(&module, source)))
    });
    own.collect()
}

/// What of the messages that the guide's table of errors quotes no source says. A quoted message stands in backquotes, with `…` for what differs.
fn check_messages(table: &str, sources: &[String]) -> Vec<String> {
    let said = |text: &str| {
        let joined = text.split("\\\n").map(str::trim_start).collect::<String>();
        joined.replace('`', "")
    };
    let sources: Vec<String> = sources.iter().map(|source| said(source)).collect();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).flat_map(|message| message.split('…')).map(str::trim);
    let unknown = quoted.filter(|piece| piece.len() >= 10 && !sources.iter().any(|source| source.contains(piece)));
    unknown.map(|piece| format!("the guide explains a message that there is not: {piece}")).collect()
}

/// Whether all of a file is for tests.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

fn assert_tidy(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn crates_depend_only_on_what_they_may() {
    for (path, allowed) in EDGES {
        assert_tidy(&check_edges(path, &std::fs::read_to_string(root().join(path)).unwrap(), allowed));
    }
}

#[test]
fn every_published_crate_has_the_licences() {
    let text = |path: &Path| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    for (manifest, _) in EDGES {
        let directory = Path::new(manifest).parent().unwrap();
        assert_tidy(&check_licenses(directory.to_str().unwrap(), |name| (text(&directory.join(name)), text(Path::new(name)))));
    }
}

#[test]
fn modules_import_downwards() {
    let sources = sources();
    for crate_path in FLOORS {
        assert_tidy(&check_floors(crate_path, &modules_of(crate_path, &sources)));
    }
}

#[test]
fn the_map_shows_the_floors() {
    let map = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let sources = sources();
    for (name, crate_path) in MAPPED {
        assert_tidy(&check_map(name, &map, &modules_of(crate_path, &sources)));
    }
}

#[test]
fn unsafe_stands_where_it_is_listed() {
    let counts = sources().into_iter().map(|(path, source)| (path, unsafe_words(&source))).filter(|(_, count)| *count > 0);
    let (tests, production): (BTreeMap<_, _>, BTreeMap<_, _>) = counts.partition(|(path, _)| is_test(path));
    assert_tidy(&check_unsafe(&production, UNSAFE));
    let listed: Vec<_> = UNSAFE_TESTS.iter().map(|&path| (path, tests.get(path).copied().unwrap_or(0))).collect();
    assert_tidy(&check_unsafe(&tests, &listed));
}

#[test]
fn arguments_for_unsafe_cite_an_invariant() {
    let architecture = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let ipc = sources().into_iter().filter(|(path, _)| path.starts_with("ipc/src/"));
    assert_tidy(&ipc.flat_map(|(path, source)| check_arguments(&path, &source, &architecture)).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_are_of_a_readable_size() {
    let production = sources().into_iter().filter(|(path, _)| !is_test(path));
    assert_tidy(&production.flat_map(|(path, source)| check_sizes(&path, &source)).collect::<Vec<_>>());
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_tidy(&sources().iter().flat_map(|(path, source)| check_head(path, source)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    assert_tidy(
        &sources()
            .iter()
            .flat_map(|(path, source)| check_words(path, source, is_test(path) || MAY_SLEEP.contains(&&path[..])))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let texts = files(&["rs", "md", "toml", "txt", "py", "sh", "stderr"]);
    assert_tidy(&texts.iter().flat_map(|(path, text)| check_paths(path, text)).collect::<Vec<_>>());
}

#[test]
fn every_limit_is_explained_and_enforced() {
    let (limits, others): (Vec<_>, Vec<_>) = sources().into_iter().partition(|(path, _)| path == "ipc/src/limits.rs");
    let others: Vec<String> = others.into_iter().filter(|(path, _)| !is_test(path)).map(|(_, source)| code_of(&source)).collect();
    assert_tidy(&check_limits(&limits[0].1, &others));
}

#[test]
fn the_guide_has_all_its_chapters_and_quotes_what_is_said() {
    let sources: Vec<(String, String)> = sources().into_iter().filter(|(path, _)| !is_test(path)).collect();
    let (_, index) = sources.iter().find(|(path, _)| path == "src/guide.rs").unwrap();
    for (path, text) in files(&["md"]).iter().filter(|(path, _)| path.starts_with("src/guide/")) {
        let chapter = path.trim_start_matches("src/guide/").trim_end_matches(".md");
        let listed = code_of(index).lines().flat_map(names).any(|name| name == chapter);
        assert!(listed && index.contains(&format!("//! | [`{chapter}`]")), "{chapter} is not in the list of chapters, or not in the table");
        if chapter == "troubleshooting" {
            assert_tidy(&check_messages(text, &sources.iter().map(|(_, source)| source.clone()).collect::<Vec<_>>()));
        }
    }
}

// ---- Canaries: what each rule must object to ----

#[test]
fn canary_unsafe() {
    let source = "// unsafe\nlet s = \"unsafe\"; let r = r#\"unsafe \"quoted\" unsafe\"#; /* unsafe /* unsafe */ */\nunsafe { f('\"', 'a', \"\\\"\") }";
    assert_eq!(unsafe_words(source), 1);
    assert_eq!(unsafe_words("#![deny(unsafe_code)] fn f<'a>(x: &'a str) -> &'a str { x }"), 0);
    let found = BTreeMap::from([("a.rs".to_owned(), 2), ("b.rs".to_owned(), 1)]);
    assert_eq!(check_unsafe(&found, &[("a.rs", 2), ("b.rs", 1)]), [""; 0]);
    for allowed in [&[("a.rs", 2)][..], &[("a.rs", 1), ("b.rs", 1)], &[("a.rs", 2), ("b.rs", 1), ("c.rs", 1)]] {
        assert_eq!(check_unsafe(&found, allowed).len(), 1, "{allowed:?}");
    }
}

#[test]
fn canary_arguments() {
    let wrong = |source: &str| check_arguments("a.rs", source, "**INV-1. One.**\n**INV-23. Two.**").len();
    assert_eq!(wrong("// SAFETY: so\n    // and so (INV-1, INV-23).\nunsafe { f() }"), 0);
    assert_eq!(wrong("// SAFETY: as above.\n// SAFETY: so (INV-1)."), 1);
    assert_eq!(wrong("// SAFETY: so (INV-2)."), 1);
    assert_eq!(wrong("// SAFETY: so (INV-1, INV-24).\nunsafe { f() } // INV-1"), 1);
}

#[test]
fn canary_floors() {
    let crate_of = |files: &[(&str, &str)]| -> BTreeMap<String, Named> {
        files.iter().map(|(file, source)| (module_of(file), named(&module_of(file), source))).collect()
    };
    // `low` and `high` name each other: by way of the parent that hands a name on, and in the middle of the code.
    let high = ("high.rs", "use std::fmt;\nuse crate::{parent::{Name, self}, low::Low as Deep};");
    let parent = ("parent/mod.rs", "mod child;\npub use child::{\n    Name,\n    Other,\n};\nfn f(_: child::Name) {}");
    let child = ("parent/child.rs", "use super::Other;\npub struct Name;");
    let round = crate_of(&[high, parent, child, ("low.rs", "fn f() { crate::high::g() }")]);
    assert_eq!(circles(&round), [["high", "low"]]);
    assert_eq!(check_floors("c", &round).len(), 1);
    let round = crate_of(&[high, parent, ("parent/child.rs", "use crate::high::High;"), ("low.rs", "")]);
    assert_eq!(circles(&round), [["high", "parent::child"]]);
    let tests = ("low.rs", "// use crate::high::g;\n#[cfg(test)]\nmod tests {\n    use crate::high::g;\n}");
    assert!(circles(&crate_of(&[high, parent, child, tests])).is_empty());
}

#[test]
fn canary_map() {
    let crate_of = |high: &str| -> BTreeMap<String, Named> {
        let files = [("lib.rs", "mod low;"), ("low.rs", "fn f() {}"), ("high/mod.rs", "mod part;"), ("high/part.rs", high)];
        files.iter().map(|(file, source)| (module_of(file), named(&module_of(file), source))).collect()
    };
    let map = |rows: &str| format!("In `c`, from the bottom up:\n\n| modules | what |\n|---|---|\n{rows}\nIn `d`: | `low` |\n");
    let modules = crate_of("use crate::low::f;");
    assert_eq!(check_map("c", &map("| `low` | a |\n| `high` | its `high::part` |\n"), &modules), [""; 0]);
    assert_eq!(check_map("c", &map("| `low` ← `high` | both |\n"), &modules), [""; 0]);
    let wrong = ["| `high` | a |\n| `low` | b |\n", "| `low` | a |\n", "| `low`, `low`, `high` | a |\n", "| `low`, `high`, `gone` | a |\n"];
    for rows in wrong {
        assert_eq!(check_map("c", &map(rows), &modules).len(), 1, "{rows}");
    }
}

#[test]
fn canary_sizes() {
    let function =
        |lines: usize| format!("pub fn long(a: [u8; 3])\nwhere\n    u8: Copy,\n{{\n{}}}\n", "    step(\"}\");\n".repeat(lines - 5));
    assert_eq!(check_sizes("f.rs", &function(FUNCTION_LINES_MAX)), [""; 0]);
    assert_eq!(check_sizes("f.rs", &function(FUNCTION_LINES_MAX + 1)).len(), 1);
    let file = "const A: u8 = 0;\n".repeat(FILE_LINES_MAX);
    assert_eq!(check_sizes("f.rs", &format!("{file}#[cfg(test)]\nmod tests {{\n    fn f() {{}}\n}}\n")), [""; 0]);
    assert_eq!(check_sizes("f.rs", &format!("{file}const B: u8 = 0;\n")).len(), 1);
}

#[test]
fn canary_heads_and_words() {
    assert_eq!(check_head("f.rs", "#![allow(x)]\n//! What it is for.\nuse a;\n"), [""; 0]);
    assert_eq!(check_head("f.rs", "use a;\n//! Too late.\n").len(), 1);
    assert_eq!(check_head("f.rs", &"//! a\n".repeat(HEAD_LINES_MAX + 1)).len(), 1);
    let words = "fn f() {\n    todo!();\n    unimplemented!();\n    dbg!(1);\n    std::thread::sleep(t);\n}\n// todo!()\n";
    assert_eq!(check_words("f.rs", words, false).len(), 4);
    assert_eq!(check_words("f.rs", words, true).len(), 3);
    assert_eq!(check_words("f.rs", "#[cfg(test)]\nmod tests {\n    fn f() { thread::sleep(t) }\n}\n", false), [""; 0]);
}

#[test]
fn canary_paths() {
    let place = format!("see {}home{}someone/file", '/', '/');
    assert_eq!(check_paths("f.md", &place).len(), 1);
    assert_eq!(check_paths("f.md", "see docs/home/page, tests/work/ and https://example.org/root/x"), [""; 0]);
}

#[test]
fn canary_limits() {
    let limits = "/// From here to there.\npub const A_MAX: usize = 1;\n";
    assert_eq!(check_limits(limits, &["if n > A_MAX {".to_owned()]), [""; 0]);
    assert_eq!(check_limits(limits, &["if n > AA_MAX {".to_owned()]).len(), 1);
    assert_eq!(check_limits("pub const A_MAX: usize = 1;\n", &["A_MAX".to_owned()]).len(), 1);
}

#[test]
fn canary_messages() {
    let source = "format!(\"{name} was not found: look \\\n        for `it` elsewhere\")".to_owned();
    assert_eq!(check_messages("| `… was not found: look for it elsewhere` | so |", std::slice::from_ref(&source)), [""; 0]);
    assert_eq!(check_messages("| `… was not found … there is no such sentence` | so |", &[source]).len(), 1);
}

#[test]
fn canary_edges() {
    let manifest = "[dependencies]\ncommonhold-ipc.workspace = true\n[dev-dependencies]\ncommonhold = { path = \"..\" }\n";
    assert_eq!(check_edges("proxy/Cargo.toml", manifest, &["commonhold-ipc"]), [""; 0]);
    assert_eq!(check_edges("ipc/Cargo.toml", manifest, &[]).len(), 1);
    assert_eq!(check_edges("ipc/Cargo.toml", "[target.'cfg(unix)'.dependencies]\ncommonhold-proxy = \"1\"\n", &[]).len(), 1);
    assert_eq!(check_edges("ipc/Cargo.toml", "[dependencies.commonhold-proxy]\nversion = \"1\"\n", &[]).len(), 1);
}

#[test]
fn canary_licenses() {
    assert_eq!(check_licenses("c", |name| (name.to_owned(), name.to_owned())), [""; 0]);
    assert_eq!(check_licenses("c", |name| (String::new(), name.to_owned())).len(), LICENSES.len());
}
