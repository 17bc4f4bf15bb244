//! The screen of `slotway top`: as many lines as fit, and a footer.

use ratatui::Frame;
use ratatui::buffer::CellDiffOption;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Text};

use super::Error;

/// The lines of the screen, and how far it is scrolled.
pub struct Screen {
    /// All lines, whether they fit or not.
    pub lines: Vec<Line<'static>>,
    /// Why the last refresh failed.
    pub error: Option<Error>,
    /// The index of the first visible line.
    top: usize,
    /// Off if `NO_COLOR` is set.
    colours: bool,
}

impl Screen {
    /// A screen scrolled to the first of `lines`.
    pub fn new(lines: Vec<Line<'static>>) -> Screen {
        let colours = std::env::var_os("NO_COLOR").is_none();
        Screen { lines, error: None, top: 0, colours }
    }

    /// Scrolls by this number of lines, down if it is positive. The next [`Screen::draw`] stops it
    /// at the last line.
    pub fn scroll(&mut self, by: isize) {
        self.top = self.top.saturating_add_signed(by);
    }

    /// Draws the visible lines and the footer: the keys, or the error.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let [body, footer] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        let height = usize::from(body.height);
        self.top = self.top.min(self.lines.len().saturating_sub(height));
        let visible = self.lines.iter().skip(self.top).take(height).cloned();
        frame.render_widget(visible.collect::<Text<'_>>(), body);
        let has_more = self.lines.len() > self.top + height;
        let text = match &self.error {
            Some(error) => error.to_string().light_red(),
            None if has_more => "q quits, ↓ has more, r looks now".dim(),
            None => "q quits, r looks now".dim(),
        };
        frame.render_widget(text, footer);
        let area = frame.area();
        let buffer = frame.buffer_mut();
        if !self.colours {
            buffer.set_style(area, Style::new().fg(Color::Reset));
        }
        // Cells that have not changed are written as well: they may be covered by what another
        // program has written to the terminal.
        for cell in &mut buffer.content {
            cell.set_diff_option(CellDiffOption::AlwaysUpdate);
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// Draws the screen on the terminal and returns its lines.
    fn shown(screen: &mut Screen, terminal: &mut Terminal<TestBackend>) -> Vec<String> {
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..buffer.area.height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn screen(lines: usize) -> Screen {
        let lines = (1..=lines).map(|n| Line::from(format!("line {n}").green())).collect();
        Screen { lines, error: None, top: 0, colours: true }
    }

    fn terminal() -> Terminal<TestBackend> {
        Terminal::new(TestBackend::new(32, 4)).unwrap()
    }

    #[test]
    fn lines_that_do_not_fit_are_scrolled_to() {
        let (mut screen, mut terminal) = (screen(5), terminal());
        let more = "q quits, ↓ has more, r looks now";
        assert_eq!(shown(&mut screen, &mut terminal), ["line 1", "line 2", "line 3", more]);
        screen.scroll(-1);
        screen.scroll(1);
        assert_eq!(shown(&mut screen, &mut terminal), ["line 2", "line 3", "line 4", more]);
        screen.scroll(10);
        let end = ["line 3", "line 4", "line 5", "q quits, r looks now"];
        assert_eq!(shown(&mut screen, &mut terminal), end);
        screen.scroll(-1);
        assert_eq!(shown(&mut screen, &mut terminal), ["line 2", "line 3", "line 4", more]);
        // A terminal that is larger shows everything.
        terminal.backend_mut().resize(32, 7);
        let all = ["line 1", "line 2", "line 3", "line 4", "line 5", "", "q quits, r looks now"];
        assert_eq!(shown(&mut screen, &mut terminal), all);
    }

    #[test]
    fn an_error_stands_in_the_footer_until_it_is_over() {
        let (mut screen, mut terminal) = (screen(1), terminal());
        screen.error = Some(Error::Terminal(std::io::Error::other("wrong\u{1b}[2J")));
        assert_eq!(shown(&mut screen, &mut terminal)[3], "the terminal: wrong[2J");
        assert_eq!(terminal.backend().buffer()[(0, 3)].fg, Color::LightRed);
        screen.error = None;
        assert_eq!(shown(&mut screen, &mut terminal)[3], "q quits, r looks now");
    }

    #[test]
    fn colours_can_be_off() {
        let (mut screen, mut terminal) = (screen(1), terminal());
        shown(&mut screen, &mut terminal);
        assert_eq!(terminal.backend().buffer()[(0, 0)].fg, Color::Green);
        screen.colours = false;
        shown(&mut screen, &mut terminal);
        assert_eq!(terminal.backend().buffer()[(0, 0)].fg, Color::Reset);
    }
}
