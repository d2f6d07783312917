//! No two files of a crate import each other, directly or through others, and ARCHITECTURE.md lists which module of the server
//! imports which.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    str::FromStr,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

type Module = Vec<String>;

/// The modules of a crate, without those that exist only in tests.
#[derive(Default)]
struct Crate {
    /// Their source code.
    sources: BTreeMap<Module, Vec<TokenTree>>,
    /// The names that a module re-exports, with the paths that they stand for.
    exports: BTreeMap<(Module, String), Module>,
}

/// Returns an identifier or a punctuation mark as text.
fn text(tree: &TokenTree) -> String {
    if let TokenTree::Group(_) = tree { String::new() } else { tree.to_string() }
}

/// Removes every item with the attribute `#[cfg(test)]`.
fn without_tests(stream: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let is_test =
            |next: Option<&TokenTree>| next.is_some_and(|next| next.to_string().replace(' ', "") == "[cfg(test)]");
        if text(&tree) == "#" && is_test(trees.peek()) {
            let is_end = |tree: &TokenTree| match tree {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                other => text(other) == ";",
            };
            // `use a::{b, c};` has braces, too.
            let mut is_use = false;
            for skipped in trees.by_ref() {
                is_use |= text(&skipped) == "use";
                if is_end(&skipped) && !(is_use && text(&skipped) != ";") {
                    break;
                }
            }
            continue;
        }
        kept.push(match tree {
            TokenTree::Group(group) => {
                let inner = without_tests(group.stream()).into_iter().collect();
                TokenTree::Group(proc_macro2::Group::new(group.delimiter(), inner))
            }
            other => other,
        });
    }
    kept
}

impl Crate {
    /// Reads the crate whose root module is in `file`.
    fn read(file: &Path) -> Self {
        let mut found = Self::default();
        found.add(Module::new(), file, file.parent().expect("a directory"));
        found
    }

    /// Adds the module in `file`, whose child modules are in `directory`.
    fn add(&mut self, module: Module, file: &Path, directory: &Path) {
        let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let source = TokenStream::from_str(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let source = without_tests(source);
        for (at, window) in source.windows(3).enumerate() {
            if text(&window[0]) == "mod" && text(&window[2]) == ";" {
                let name = text(&window[1]);
                let mut below = directory.join(&name);
                let mut candidates = vec![directory.join(format!("{name}.rs")), below.join("mod.rs")];
                let attribute = at.checked_sub(1).map(|before| source[before].to_string()).unwrap_or_default();
                if let Some(path) = attribute.strip_prefix("[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                    let path = file.parent().expect("a directory").join(path);
                    below = path.parent().expect("a directory").to_owned();
                    candidates.push(path);
                }
                let file = candidates.iter().find(|file| file.exists());
                let file = file.unwrap_or_else(|| panic!("{}: no file for {name}", directory.display()));
                self.add([&module[..], &[name]].concat(), file, &below);
            }
        }
        self.sources.insert(module, source);
    }

    /// Returns the module in which the item with this path is, from the crate's root.
    fn resolve(&self, path: &[String]) -> Module {
        let depth = (0..=path.len()).rev().find(|&depth| self.sources.contains_key(&path[..depth]));
        let module = path[..depth.expect("the root is a module")].to_vec();
        let Some(name) = path.get(module.len()) else { return module };
        match self.exports.get(&(module.clone(), name.clone())) {
            Some(target) if target != path => self.resolve(&[target, &path[module.len() + 1..]].concat()),
            _ => module,
        }
    }

    /// Finds the paths of this crate in `trees`, from its root, each with the name that it gets.
    fn paths(&self, module: &Module, prefix: Option<&Module>, trees: &[TokenTree], found: &mut Vec<(Module, String)>) {
        let mut rest = trees;
        let is_path = |rest: &[TokenTree]| rest.len() > 2 && text(&rest[0]) == ":" && text(&rest[1]) == ":";
        let mut previous = String::new();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match (text(first).as_str(), rest) {
                // The path in `pub(in path)` imports nothing.
                ("pub", [TokenTree::Group(group), after @ ..]) if group.delimiter() == Delimiter::Parenthesis => {
                    rest = after;
                    continue;
                }
                // A module within the file: its `super` is this module.
                ("mod", [name, TokenTree::Group(group), after @ ..]) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.paths(&[&module[..], &[text(name)]].concat(), None, &inner, found);
                    rest = after;
                    continue;
                }
                _ => {}
            }
            let TokenTree::Ident(ident) = first else {
                if let TokenTree::Group(group) = first {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.paths(module, None, &inner, found);
                }
                previous = text(first);
                continue;
            };
            let name = ident.to_string();
            let child = [&module[..], std::slice::from_ref(&name)].concat();
            let mut path = match (prefix, name.as_str()) {
                (Some(prefix), "self") => prefix.clone(),
                (Some(prefix), _) => [&prefix[..], &[name]].concat(),
                (None, "crate") if is_path(rest) => Module::new(),
                (None, "super") if is_path(rest) => module[..module.len() - 1].to_vec(),
                (None, "self") if is_path(rest) => module.clone(),
                (None, _) if is_path(rest) && previous != ":" && self.sources.contains_key(&child) => child,
                _ => {
                    previous = name;
                    continue;
                }
            };
            let mut group = None;
            while is_path(rest) {
                match &rest[2] {
                    TokenTree::Ident(next) if *next == "super" => drop(path.pop()),
                    TokenTree::Ident(next) => path.push(next.to_string()),
                    TokenTree::Group(inner) => group = Some(inner.stream().into_iter().collect::<Vec<_>>()),
                    // `*`, or the `<` of generic arguments.
                    _ => break,
                }
                rest = &rest[3..];
            }
            if let Some(inner) = group {
                self.paths(module, Some(&path), &inner, found);
            } else {
                let renamed = rest.len() > 1 && text(&rest[0]) == "as";
                let name = if renamed { text(&rest[1]) } else { path.last().cloned().unwrap_or_default() };
                found.push((path, name));
            }
            previous = String::new();
        }
    }

    /// Splits a module's source into its re-exports (`pub use`) and the rest.
    fn split(source: &[TokenTree]) -> (Vec<TokenTree>, Vec<TokenTree>) {
        let (mut exports, mut rest) = (Vec::new(), Vec::new());
        let mut trees = source.iter().cloned().peekable();
        while let Some(tree) = trees.next() {
            if text(&tree) != "pub" {
                rest.push(tree);
                continue;
            }
            let mut visibility = vec![tree];
            if let Some(TokenTree::Group(_)) = trees.peek() {
                visibility.extend(trees.next());
            }
            if trees.peek().is_some_and(|tree| text(tree) == "use") {
                exports.extend(trees.by_ref().take_while(|tree| text(tree) != ";"));
            } else {
                rest.extend(visibility);
            }
        }
        (exports, rest)
    }

    /// Returns for each module the modules that it imports. A name that a module only re-exports belongs to the module that has it.
    fn imports(mut self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut all = BTreeMap::new();
        for (module, source) in &self.sources {
            let (exports, rest) = Self::split(source);
            let (mut exported, mut used) = (Vec::new(), Vec::new());
            self.paths(module, None, &exports, &mut exported);
            self.paths(module, None, &rest, &mut used);
            let words: BTreeSet<_> = TokenStream::from_iter(rest)
                .to_string()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .map(str::to_owned)
                .collect();
            used.extend(exported.iter().filter(|(_, name)| words.contains(name)).cloned());
            all.insert(module.clone(), (exported, used));
        }
        for (module, (exported, _)) in &all {
            for (path, name) in exported {
                self.exports.insert((module.clone(), name.clone()), path.clone());
            }
        }
        let imports = all.into_iter().map(|(module, (_, used))| {
            let mut targets: BTreeSet<_> = used.iter().map(|(path, _)| self.resolve(path)).collect();
            targets.remove(&module);
            (module, targets)
        });
        imports.collect()
    }
}

/// Finds the groups of modules that import each other, directly or through others. Returns the imports within each group.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let reachable = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = imports[from].iter().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module) {
                next.extend(&imports[module]);
            }
        }
        seen
    };
    let reachable: BTreeMap<_, _> = imports.keys().map(|module| (module, reachable(module))).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for (module, targets) in &reachable {
        let circle: BTreeSet<_> = targets.iter().filter(|other| reachable[*other].contains(module)).collect();
        let edges = circle.iter().flat_map(|from| {
            let inside = imports[**from].iter().filter(|to| circle.contains(to));
            inside.map(|to| format!("{} imports {}", from.join("::"), to.join("::")))
        });
        let edges: Vec<_> = edges.collect();
        if !circle.is_empty() && !found.contains(&edges) {
            found.push(edges);
        }
    }
    found
}

fn imports_of(file: &str) -> BTreeMap<Module, BTreeSet<Module>> {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).imports()
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let programs = ["bins/src/main.rs", "bins/src/get/main.rs", "bins/src/etcd/main.rs"];
    for file in ["core/src/lib.rs", "runtime-std/src/lib.rs"].into_iter().chain(programs) {
        let found = circles(&imports_of(file));
        assert!(found.is_empty(), "{file}: {found:#?}");
    }
}

/// The imports between the top-level modules of the server.
fn imports_between_modules() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut modules: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, targets) in imports_of("runtime-std/src/lib.rs") {
        let Some(from) = from.first() else { continue };
        let targets = targets.iter().filter_map(|target| target.first()).filter(|target| *target != from);
        modules.entry(vec![from.clone()]).or_default().extend(targets.map(|target| vec![target.clone()]));
    }
    modules
}

#[test]
fn modules_of_the_server_do_not_import_each_other_in_circles() {
    let found = circles(&imports_between_modules());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn architecture_lists_the_imports_between_modules() {
    let line = |(from, targets): (&Module, &BTreeSet<Module>)| {
        format!("{}: {}", from.concat(), targets.iter().map(|target| target.concat()).collect::<Vec<_>>().join(" "))
            .trim_end()
            .to_owned()
    };
    let expected: BTreeSet<_> = imports_between_modules().iter().map(line).collect();
    let document = include_str!("../../ARCHITECTURE.md");
    let block =
        document.split("```imports\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block `imports`");
    let listed: BTreeSet<_> = block.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let all = expected.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    assert_eq!(listed, expected, "ARCHITECTURE.md on the left; the code has:\n{all}\n");
}
