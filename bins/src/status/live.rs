//! The live status: all clients in the order of their addresses, or the boots of one client. Keys select, search and filter.

use std::io::{Write, stdout};

use super::{
    history,
    keys::Key,
    screen::{Colour, Line, Screen},
    source::{Source, StatusError},
    table::{Row, Table},
    terminal::{Event, Terminal},
    text::escape,
    view::View,
};

/// Longer searches are cut off, in characters.
const MAX_SEARCH: usize = 40;
/// The indentation of continued lines about servers.
const INDENT: usize = 4;

/// Shows the status until a key or a signal ends it.
///
/// # Errors
///
/// The server does not answer at the start, or the terminal cannot be used.
pub(super) fn show(source: &Source, client: Option<&str>) -> Result<(), StatusError> {
    let mut live = Live::new(source.view(None)?, client);
    let terminal = Terminal::open(source.clone())?;
    loop {
        let frame = live.frame(&Screen::current());
        write!(stdout(), "{frame}")?;
        stdout().flush()?;
        match terminal.next() {
            Some(Event::Key(key)) if !live.press(key) => {}
            Some(Event::View(view)) => live.update(view),
            Some(Event::Resized) => {}
            Some(Event::Key(_) | Event::Stop) | None => return Ok(()),
        }
    }
}

/// The newest view, and what the keys have chosen.
#[derive(Debug)]
struct Live {
    view: View,
    /// The reason why the last query failed.
    problem: Option<String>,
    /// The client whose boots are shown, instead of all clients.
    opened: Option<String>,
    /// The first row shown of its boots; by default, the newest requests are shown.
    offset: Option<usize>,
    /// The largest useful offset of the last frame, and its number of rows for boots or clients.
    max_offset: usize,
    page: usize,
    /// The selected client, and its index when it was last found.
    selected: Option<String>,
    index: usize,
    /// The index of the last client in the last frame.
    last_index: usize,
    /// The index of the first client shown.
    top: usize,
    is_filtered: bool,
    search: String,
    is_typing: bool,
}

impl Live {
    fn new(view: View, client: Option<&str>) -> Self {
        Self {
            view,
            problem: None,
            opened: client.map(str::to_owned),
            offset: None,
            max_offset: 0,
            page: 1,
            selected: client.map(str::to_owned),
            index: 0,
            last_index: 0,
            top: 0,
            is_filtered: false,
            search: String::new(),
            is_typing: false,
        }
    }

    /// Takes the reply to a query. After a failed one, the last view stays.
    fn update(&mut self, reply: Result<View, StatusError>) {
        match reply {
            Ok(view) => (self.view, self.problem) = (view, None),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    /// Reacts to a key. Returns whether it ends the program.
    fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Interrupt => return true,
            _ if self.is_typing => self.type_key(key),
            Key::Character('q') => return true,
            _ if self.opened.is_some() => self.scroll(key),
            _ => self.choose(key),
        }
        false
    }

    /// Changes the text that is searched.
    fn type_key(&mut self, key: Key) {
        match key {
            Key::Character(character) if self.search.len() < MAX_SEARCH => self.search.push(character),
            Key::Backspace => drop(self.search.pop()),
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                self.search.clear();
                self.is_typing = false;
            }
            _ => {}
        }
    }

    /// Moves in the boots of a client, or leaves them.
    fn scroll(&mut self, key: Key) {
        let offset = self.offset.unwrap_or(self.max_offset).min(self.max_offset);
        match key {
            Key::Escape | Key::Enter | Key::Backspace => (self.opened, self.offset) = (None, None),
            key => self.offset = moved(key, offset, self.page).or(self.offset),
        }
    }

    /// Moves among the clients, or changes which ones are shown.
    fn choose(&mut self, key: Key) {
        match key {
            Key::Enter => self.opened.clone_from(&self.selected),
            Key::Character('/') => self.is_typing = true,
            Key::Character('f') => self.is_filtered = !self.is_filtered,
            Key::Escape => {
                self.search.clear();
                self.is_filtered = false;
            }
            key => {
                if let Some(index) = moved(key, self.index, self.page) {
                    (self.index, self.selected) = (index.min(self.last_index), None);
                }
            }
        }
    }

    /// Returns the escape sequences and the text of the whole screen.
    fn frame(&mut self, screen: &Screen) -> String {
        let rows = match self.opened.clone() {
            Some(client) => self.boots(&client, screen),
            None => self.clients(screen),
        };
        Screen::frame(&rows)
    }

    /// Returns lines about servers that do not answer.
    fn problems(&self, are_servers_shown: bool) -> Vec<Line> {
        let missing = self.view.missing().filter(|_| !are_servers_shown);
        let problem = self.problem.iter().map(|problem| format!("not up to date: {problem}"));
        missing.chain(problem).map(|problem| Line::wrapped(escape(&problem), INDENT, Colour::Red)).collect()
    }

    /// Returns the rows of the boots of one client.
    fn boots(&mut self, client: &str, screen: &Screen) -> Vec<String> {
        let found = self.view.find(client);
        let mut lines = match found {
            Some(client) => history::lines(client, self.view.now),
            None => vec![Line::wrapped(
                format!("{}: no requests in the history yet", escape(client)),
                INDENT,
                Colour::Default,
            )],
        };
        let requests = found.and_then(|client| client.boots.first()).map_or(0, |boot| boot.files.len());
        let body = lines.split_off(1);
        let (mut top, space) = screen.split(&[self.problems(false), lines].concat());
        // An empty line and a title are before the requests of the newest boot.
        let newest: usize = body.iter().take(2 + requests).map(|line| screen.rows(line).len()).sum();
        let body: Vec<String> = body.iter().flat_map(|line| screen.rows(line)).collect();
        (self.page, self.max_offset) = (space.max(1), body.len().saturating_sub(space));
        let offset = self.offset.unwrap_or(newest.saturating_sub(space)).min(self.max_offset);
        self.offset = self.offset.map(|_| offset);
        top.extend(body.into_iter().skip(offset).take(space));
        let keys = "q quit  esc all clients  arrows scroll";
        let hidden = self.max_offset - offset;
        let more = if hidden > 0 { format!(" | {hidden} more lines below") } else { String::new() };
        screen.fill(&mut top, &format!("{keys}{more}"));
        top
    }

    /// Returns the rows of all clients.
    fn clients(&mut self, screen: &Screen) -> Vec<String> {
        let table = Table::by_address(&self.view);
        let wanted = self.search.to_ascii_lowercase();
        let is_shown = |row: &&Row<'_>| row.contains(&wanted) && (!self.is_filtered || row.client.state.is_problem());
        let shown: Vec<&Row<'_>> = table.clients.iter().filter(is_shown).collect();
        let position =
            self.selected.as_ref().and_then(|selected| shown.iter().position(|row| row.client.client == *selected));
        self.last_index = shown.len().saturating_sub(1);
        self.index = position.unwrap_or(self.index).min(self.last_index);
        self.selected = shown.get(self.index).map(|row| row.client.client.clone());
        let (mut rows, space) = screen.split(&[self.problems(true), table.titles.clone()].concat());
        // One line each: the rows of those below stay where they are while transfers begin and end.
        let clients: Vec<Vec<String>> =
            shown.iter().map(|row| row.lines.first().map_or(vec![], |line| screen.rows(line))).collect();
        self.page = space.max(1);
        self.top = first_shown(&clients, self.top, self.index, space);
        for (index, client) in clients.iter().enumerate().skip(self.top) {
            let is_selected = index == self.index;
            rows.extend(client.iter().map(|row| if is_selected { Screen::reversed(row) } else { row.clone() }));
        }
        let footer = match self.is_typing {
            true => format!("search: {}_", self.search),
            false => {
                let mut filter = String::new();
                if self.is_filtered {
                    filter += ", only those with problems";
                }
                if !self.search.is_empty() {
                    filter += &format!(", with `{}`", self.search);
                }
                format!(
                    "q quit  enter open  / search  f problems only | {} of {} boards{filter}",
                    shown.len(),
                    table.clients.len()
                )
            }
        };
        screen.fill(&mut rows, &footer);
        rows
    }
}

/// Returns the position that a key leads to, if it moves.
fn moved(key: Key, position: usize, page: usize) -> Option<usize> {
    match key {
        Key::Up | Key::Character('k') => Some(position.saturating_sub(1)),
        Key::Down | Key::Character('j') => Some(position.saturating_add(1)),
        Key::PageUp => Some(position.saturating_sub(page)),
        Key::PageDown => Some(position.saturating_add(page)),
        Key::Home => Some(0),
        Key::End => Some(usize::MAX),
        _ => None,
    }
}

/// Returns the index of the first client to show, as near to the present one as possible, so that the selected one is shown whole.
fn first_shown(clients: &[Vec<String>], top: usize, selected: usize, space: usize) -> usize {
    let height = |from: usize| clients.iter().take(selected + 1).skip(from).map(Vec::len).sum::<usize>();
    // No row stays empty while there are clients above.
    let below = |from: usize| clients.iter().skip(from).map(Vec::len).sum::<usize>();
    let mut top = top.min(selected);
    while top > 0 && below(top - 1) <= space {
        top -= 1;
    }
    (top..selected).find(|from| height(*from) <= space).unwrap_or(selected)
}

#[cfg(test)]
mod tests;
