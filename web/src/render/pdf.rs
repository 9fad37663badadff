//! A statement as PDF: A4, one font, laid out by hand on krilla.

#![expect(clippy::as_conversions, reason = "page coordinates are floating point by definition of PDF")]

use anyhow::Context;
use krilla::{
    Document,
    color::rgb,
    geom::{PathBuilder, Point},
    num::NormalizedF32,
    page::PageSettings,
    paint::{Fill, Stroke},
    surface::Surface,
    text::{Font, TextDirection},
};

use super::{ContractView, StatementView};

const REGULAR: &[u8] = include_bytes!("../../../static/fonts/inter-regular.ttf");
const SEMIBOLD: &[u8] = include_bytes!("../../../static/fonts/inter-semibold.ttf");
const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 48.0;
const ROW: f32 = 15.5;
/// Room for the widest digit of Inter at size 1.
const DIGIT: f32 = 0.62;

struct Fonts {
    regular: Font,
    bold: Font,
}

/// What goes on a page, in order, with the height it takes.
enum Line<'a> {
    Title(&'a str),
    Note(String),
    Heading(&'a str),
    Header(Vec<&'a str>),
    Row(Vec<&'a str>),
    Rule,
    Space,
}

impl Line<'_> {
    const fn height(&self) -> f32 {
        match self {
            Self::Title(_) => 30.0,
            Self::Heading(_) => 26.0,
            Self::Rule => 6.0,
            Self::Space => 10.0,
            _ => ROW,
        }
    }
}

/// The PDF's bytes; the same view always gives the same ones.
pub fn statement_pdf(view: &StatementView) -> anyhow::Result<Vec<u8>> {
    let font = |bytes: &'static [u8]| Font::new(bytes.to_vec().into(), 0).context("the built-in font is unreadable");
    let fonts = Fonts { regular: font(REGULAR)?, bold: font(SEMIBOLD)? };
    let mut document = Document::new();
    let lines = lines(view);
    let mut rest = lines.as_slice();
    let mut number = 1;
    while !rest.is_empty() {
        let (page_lines, after) = rest.split_at(fitting(rest));
        let settings = PageSettings::from_wh(WIDTH, HEIGHT).context("page size")?;
        let mut page = document.start_page_with(settings);
        let mut surface = page.surface();
        draw_page(&mut surface, &fonts, page_lines, number);
        surface.finish();
        page.finish();
        rest = after;
        number += 1;
    }
    document.finish().map_err(|error| anyhow::anyhow!("PDF: {error:?}"))
}

fn lines(view: &StatementView) -> Vec<Line<'_>> {
    let mut lines = vec![
        Line::Title("Sealyard statement"),
        Line::Note(format!("{} · {} · {}", view.month, view.name, view.email)),
        Line::Note(format!("Period {} (UTC). All amounts in FIL.", view.period)),
        Line::Heading("Balances"),
        Line::Header(vec!["Account", "Opening", "In", "Out", "Closing"]),
        Line::Rule,
    ];
    for (name, account) in [("Available", &view.available), ("Vesting", &view.vesting), ("Pledged", &view.pledged)] {
        lines.push(Line::Row(vec![name, &account.opening, &account.moved_in, &account.moved_out, &account.closing]));
    }
    lines.extend([
        Line::Heading("Contracts"),
        Line::Header(vec!["Contract", "Size", "Earned", "Fees, costs", "Made up", "Net"]),
        Line::Rule,
    ]);
    for contract in &view.contracts {
        let ContractView { contract, size, gross, fee, made_up, net } = contract;
        lines.push(Line::Row(vec![contract, size, gross, fee, made_up, net]));
    }
    lines.extend([
        Line::Heading("Days"),
        Line::Header(vec!["Day", "Fees, costs", "To available", "To vesting", "Vested"]),
        Line::Rule,
    ]);
    for day in &view.days {
        lines.push(Line::Row(vec![&day.day, &day.fee, &day.to_available, &day.to_vesting, &day.vested]));
    }
    lines.push(Line::Space);
    lines.push(Line::Note("Every figure is a ledger entry and can be followed on your account's pages.".into()));
    lines
}

/// How many lines fit on a page; always at least one.
fn fitting(lines: &[Line<'_>]) -> usize {
    let mut left = HEIGHT - 2.0 * MARGIN - 20.0;
    let mut count = 0;
    for line in lines {
        left -= line.height();
        if left < 0.0 {
            break;
        }
        count += 1;
    }
    count.max(1)
}

fn draw_page(surface: &mut Surface<'_>, fonts: &Fonts, lines: &[Line<'_>], number: usize) {
    let mut y = MARGIN;
    for line in lines {
        y += line.height();
        match line {
            Line::Title(text) => write(surface, &fonts.bold, 20.0, MARGIN, y - 8.0, text, INK),
            Line::Heading(text) => write(surface, &fonts.bold, 12.0, MARGIN, y - 5.0, text, INK),
            Line::Note(text) => write(surface, &fonts.regular, 9.0, MARGIN, y - 4.0, text, GREY),
            Line::Header(cells) => row(surface, &fonts.bold, y, cells, GREY),
            Line::Row(cells) => row(surface, &fonts.regular, y, cells, INK),
            Line::Rule => rule(surface, y - 3.0),
            Line::Space => {}
        }
    }
    write(surface, &fonts.regular, 8.0, MARGIN, HEIGHT - MARGIN + 12.0, &format!("Page {number}"), GREY);
}

const INK: (u8, u8, u8) = (23, 32, 42);
const GREY: (u8, u8, u8) = (96, 108, 118);

/// The first cell at the left, the others right-aligned in equal columns.
fn row(surface: &mut Surface<'_>, font: &Font, y: f32, cells: &[&str], colour: (u8, u8, u8)) {
    const SIZE: f32 = 8.5;
    const FIRST: f32 = 135.0;
    let columns = cells.len().saturating_sub(1).max(1) as f32;
    let width = (WIDTH - 2.0 * MARGIN - FIRST) / columns;
    for (index, cell) in cells.iter().enumerate() {
        if index == 0 {
            write(surface, font, SIZE, MARGIN, y - 4.0, cell, colour);
            continue;
        }
        let mut x = MARGIN + FIRST + width * index as f32;
        if cell.contains(char::is_alphabetic) {
            x -= cell.chars().map(advance).sum::<f32>() * SIZE;
            write(surface, font, SIZE, x, y - 4.0, cell, colour);
            continue;
        }
        // The font's digits differ in width: each is set in a cell of its own, so that columns line up.
        for character in cell.chars().rev() {
            x -= advance(character) * SIZE;
            write(surface, font, SIZE, x, y - 4.0, character.encode_utf8(&mut [0; 4]), colour);
        }
    }
}

/// Room for a character at size 1: points and commas are narrow.
fn advance(character: char) -> f32 {
    match character {
        '.' | ',' | ':' | ' ' => 0.29,
        'i' | 'I' | 'l' | '-' => 0.3,
        'a'..='z' => 0.57,
        _ => DIGIT,
    }
}

fn write(surface: &mut Surface<'_>, font: &Font, size: f32, x: f32, y: f32, text: &str, (r, g, b): (u8, u8, u8)) {
    surface.set_stroke(None);
    surface.set_fill(Some(Fill {
        paint: rgb::Color::new(r, g, b).into(),
        opacity: NormalizedF32::ONE,
        rule: Default::default(),
    }));
    surface.draw_text(Point::from_xy(x, y), font.clone(), size, text, false, TextDirection::Auto);
}

fn rule(surface: &mut Surface<'_>, y: f32) {
    let mut path = PathBuilder::new();
    path.move_to(MARGIN, y);
    path.line_to(WIDTH - MARGIN, y);
    if let Some(path) = path.finish() {
        surface.set_fill(None);
        surface.set_stroke(Some(Stroke { paint: rgb::Color::new(210, 216, 220).into(), width: 0.7, ..Stroke::default() }));
        surface.draw_path(&path);
    }
}
