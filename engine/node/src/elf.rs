//! What the file of a program says about where it can run, before it runs: read from its ELF headers and from the mark that every
//! job carries ([`mark`]).
//!
//! **Does not** say that the program works there: that is what its own command `check` is for, which may be impossible to start.

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, bail, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader as _};
use object::read::{ReadCache, ReadRef};

use crate::process_link::VERSION;

/// The bytes of a mark.
const MARK_BYTES: usize = 64;
/// How many of a program's segments are searched for its mark. Compilers make about five.
const MOST_SEGMENTS: usize = 64;
/// How many versions of symbols a program may need. Each of them can refer to any place in the file, so a small file could name more than
/// anybody has time to read.
const MOST_VERSIONS: usize = 1024;
/// How much of a file is searched for its mark at a time.
const PIECE: usize = 1 << 20;
/// Begins a mark, with each bit inverted: this command reads marks and must not be taken for a job itself.
const INVERTED: [u8; 16] =
    [0x99, 0x0c, 0x8a, 0x71, 0xe6, 0x5d, 0x03, 0xbf, 0x42, 0xd4, 0x2e, 0x90, 0x6b, 0xc8, 0x17, 0xfa];
/// The number of this CPU's architecture in ELF files.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The mark of a job's binary: by it a binary says, without being run, that it is a job, of which version of the engine, and how
/// its processes speak with their node. It has to be a static that the program uses, so that no linker leaves it out.
#[must_use]
pub const fn mark() -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    let mut at = 0;
    while at < INVERTED.len() {
        mark[at] = !INVERTED[at];
        at += 1;
    }
    let version = VERSION.to_le_bytes();
    let mut of = 0;
    while of < version.len() {
        mark[at] = version[of];
        (at, of) = (at + 1, of + 1);
    }
    let engine = env!("CARGO_PKG_VERSION").as_bytes();
    of = 0;
    while of < engine.len() && at < MARK_BYTES {
        mark[at] = engine[of];
        (at, of) = (at + 1, of + 1);
    }
    mark
}

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc(u32, u32);

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Glibc {
    /// That of a symbol version such as `GLIBC_2.38`. Others, such as `GLIBC_PRIVATE`, have none.
    fn of_symbol(name: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?.split('.');
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(Self(major, minor))
    }

    /// That of the library with which this process runs; `None` if it runs with another library, or with none.
    #[must_use]
    pub fn of_this_host() -> Option<Self> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let paths = maps.lines().filter_map(|line| line.split_once('/'));
        let mut names = paths.map(|(_, path)| format!("/{path}"));
        let library = names.find(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("libc.so.6")))?;
        Self::defined_by(&std::fs::read(library).ok()?).ok()?
    }

    /// The newest version that a library defines.
    fn defined_by(content: &[u8]) -> anyhow::Result<Option<Self>> {
        let header = FileHeader64::<Endianness>::parse(content)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, content)?;
        let Some((mut definitions, strings)) = sections.gnu_verdef(endian, content)? else { return Ok(None) };
        let strings = sections.strings(endian, content, strings)?;
        let mut newest = None;
        while let Some((_, mut names)) = definitions.next()? {
            // The first one is the version, the others are those that it follows.
            if let Some(name) = names.next()? {
                newest = newest.max(Self::of_symbol(name.name(endian, strings)?));
            }
        }
        Ok(newest)
    }
}

/// What the file of a job's program says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// The number of the CPU's architecture.
    machine: u16,
    /// The version of glibc that it needs; `None` if it needs none.
    glibc: Option<Glibc>,
    /// The version of the engine with which it was built.
    engine: String,
    /// How its processes speak with their node.
    speaks: u32,
}

impl ProgramFile {
    /// Reads a file, of which only small parts are in memory at a time.
    ///
    /// # Errors
    /// It is no Linux program of 64 bits, or no job.
    pub fn read(file: &File) -> anyhow::Result<Self> {
        let cache = ReadCache::new(file);
        Self::of(&cache, |at, bytes| {
            let mut piece = vec![0; bytes];
            file.read_exact_at(&mut piece, at).ok().map(|()| piece)
        })
    }

    /// Reads the headers in `content`, and what is loaded by `pieces` of it, which are given by their offset and length.
    fn of<'a>(content: impl ReadRef<'a>, pieces: impl Fn(u64, usize) -> Option<Vec<u8>>) -> anyhow::Result<Self> {
        const SUBMIT: &str = "submit the binary of a job, such as target/release/orders";
        let begins = content.read_bytes_at(0, 5).unwrap_or_default();
        ensure!(begins == b"\x7fELF\x02", "it is no Linux program of 64 bits: {SUBMIT}");
        let damaged = || format!("it is no Linux program of 64 bits, or damaged: {SUBMIT}");
        let header = FileHeader64::<Endianness>::parse(content).with_context(damaged)?;
        let endian = header.endian().with_context(damaged)?;
        let segments = header.program_headers(endian, content).with_context(damaged)?;
        // Only what is loaded counts; most of a file may be for debuggers.
        let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
        let mark =
            loaded.take(MOST_SEGMENTS).filter_map(|segment| find_mark_in(segment.file_range(endian), &pieces)).next();
        let Some((speaks, engine)) = mark else { bail!("it is no job of Fluvial: {SUBMIT}") };
        let glibc = needed_glibc(content).with_context(damaged)?;
        Ok(Self { machine: header.e_machine(endian).0, glibc, engine, speaks })
    }

    /// Whether its processes could speak with a node of this version of the engine.
    ///
    /// # Errors
    /// They could not.
    pub fn fits_this_engine(&self) -> anyhow::Result<()> {
        let Self { engine, speaks, .. } = self;
        let own = env!("CARGO_PKG_VERSION");
        ensure!(
            *speaks == VERSION,
            "it was built with Fluvial {engine}, whose processes speak version {speaks} of the protocol with their node, and this \
             is Fluvial {own}, which speaks version {VERSION}: build the job with the version of the cluster"
        );
        Ok(())
    }

    /// Whether it was built for this CPU.
    ///
    /// # Errors
    /// It was built for another one.
    pub fn fits_this_cpu(&self) -> anyhow::Result<()> {
        let machine = self.machine;
        ensure!(
            machine == MACHINE,
            "it was built for another CPU (ELF machine {machine}) than that of this node ({MACHINE})"
        );
        Ok(())
    }

    /// Whether a host with this version of glibc could load it. Where the version is not known, only a start can tell.
    ///
    /// # Errors
    /// It needs a newer one.
    pub fn fits_glibc(&self, of_host: Option<Glibc>) -> anyhow::Result<()> {
        if let (Some(needed), Some(there)) = (self.glibc, of_host) {
            ensure!(
                needed <= there,
                "it needs glibc {needed}, this node has {there}: build it on a host with an older one, or for \
                 x86_64-unknown-linux-musl"
            );
        }
        Ok(())
    }
}

/// The same of the first mark in a range of a file, which is given by its offset and length.
fn find_mark_in((mut at, bytes): (u64, u64), pieces: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<(u32, String)> {
    let end = at.checked_add(bytes)?;
    while at < end {
        let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        if let Some(found) = find_mark(&pieces(at, piece)?) {
            return Some(found);
        }
        // A mark that this piece cuts is whole in the next one.
        at += if piece == PIECE { PIECE - MARK_BYTES } else { piece } as u64;
    }
    None
}

/// The protocol version and the engine's version of the first mark.
fn find_mark(data: &[u8]) -> Option<(u32, String)> {
    // Not folded into a constant, which would be found in this very program.
    let begins = black_box(INVERTED).map(|byte| !byte);
    let at = memchr::memmem::find(data, &begins)?;
    let rest = data.get(at + begins.len()..at + MARK_BYTES)?;
    let (speaks, engine) = rest.split_first_chunk::<4>()?;
    let engine = engine.split(|byte| *byte == 0).next().unwrap_or_default();
    Some((u32::from_le_bytes(*speaks), String::from_utf8_lossy(engine).into_owned()))
}

/// The newest version of glibc of which a program needs a symbol.
fn needed_glibc<'a>(content: impl ReadRef<'a>) -> anyhow::Result<Option<Glibc>> {
    let header = FileHeader64::<Endianness>::parse(content)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, content)?;
    let Some((mut libraries, strings)) = sections.gnu_verneed(endian, content)? else { return Ok(None) };
    let strings = sections.strings(endian, content, strings)?;
    let (mut newest, mut number) = (None, 0);
    while let Some((_, mut versions)) = libraries.next()? {
        number += 1;
        ensure!(number <= MOST_VERSIONS, "it names more than {MOST_VERSIONS} versions of symbols");
        while let Some(version) = versions.next()? {
            number += 1;
            ensure!(number <= MOST_VERSIONS, "it names more than {MOST_VERSIONS} versions of symbols");
            newest = newest.max(Glibc::of_symbol(version.name(endian, strings)?));
        }
    }
    Ok(newest)
}

/// Made-up programs.
#[cfg(test)]
pub(crate) mod made_up {
    #![allow(clippy::unwrap_used)]

    use object::elf::{self, Machine};
    use object::write::elf::{FileHeader, ProgramHeader, Vernaux, Verneed, Writer};

    use super::*;

    /// A program for this CPU and this engine.
    pub(crate) fn program() -> Vec<u8> {
        program_of(MACHINE, &mark(), &["GLIBC_2.2.5"])
    }

    /// The same that needs this version of glibc.
    pub(crate) fn program_that_needs(version: &str) -> Vec<u8> {
        program_of(MACHINE, &mark(), &[version])
    }

    /// A program whose loaded bytes are `data`, and that needs these versions of symbols of libc.
    pub(crate) fn program_of(machine: u16, data: &[u8], versions: &[&str]) -> Vec<u8> {
        let mut content = Vec::new();
        let mut writer = Writer::new(Endianness::Little, true, &mut content);
        writer.reserve_file_header();
        writer.reserve_program_headers(1);
        let at = writer.reserve(data.len() as u64, 1);
        let library = writer.add_dynamic_string(b"libc.so.6");
        let names: Vec<_> = versions.iter().map(|name| writer.add_dynamic_string(name.as_bytes())).collect();
        writer.reserve_null_section_index();
        writer.reserve_dynstr_section_index();
        writer.reserve_gnu_verneed_section_index();
        writer.reserve_shstrtab_section_index();
        writer.reserve_dynstr().unwrap();
        writer.reserve_gnu_verneed(1, versions.len());
        writer.reserve_shstrtab().unwrap();
        writer.reserve_section_headers();
        let header = FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_DYN,
            e_machine: Machine(machine),
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        };
        writer.write_file_header(&header).unwrap();
        writer.write_align_program_headers();
        let p_filesz = data.len() as u64;
        writer.write_program_header(&ProgramHeader {
            p_type: PT_LOAD,
            p_flags: elf::PF_R,
            p_offset: at,
            p_vaddr: 0,
            p_paddr: 0,
            p_filesz,
            p_memsz: p_filesz,
            p_align: 1,
        });
        writer.write(data);
        writer.write_dynstr();
        writer.write_align_gnu_verneed();
        let file = writer.dynamic_string_offset(Some(library));
        writer.write_gnu_verneed(&Verneed { version: 1, aux_count: versions.len() as u16, file });
        for (name, text) in names.into_iter().zip(versions) {
            let (name, hash) = (writer.dynamic_string_offset(Some(name)), elf::hash(text.as_bytes()));
            writer.write_gnu_vernaux(&Vernaux { flags: elf::VersionFlags(0), index: elf::VersionIndex(2), name, hash });
        }
        writer.write_shstrtab();
        writer.write_null_section_header();
        writer.write_dynstr_section_header(0);
        writer.write_gnu_verneed_section_header(0);
        writer.write_shstrtab_section_header();
        content
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::made_up::{program, program_of};
    use super::*;

    fn read(content: &[u8]) -> anyhow::Result<ProgramFile> {
        ProgramFile::of(content, |at, bytes| Some(content.get(at as usize..)?.get(..bytes)?.to_vec()))
    }

    #[test]
    fn a_mark_is_found_wherever_it_lies_in_a_file() {
        for before in [0, 1, PIECE - 1, PIECE - MARK_BYTES, PIECE - MARK_BYTES / 2, PIECE, 3 * PIECE - 100] {
            let data = [vec![7; before], mark().to_vec(), vec![7; 99]].concat();
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &program_of(MACHINE, &data, &["GLIBC_2.4"])).unwrap();
            let found = ProgramFile::read(&file).unwrap();
            assert_eq!((found.speaks, found.glibc), (VERSION, Some(Glibc(2, 4))), "{before}");
        }
    }

    #[test]
    fn a_program_says_what_it_needs() {
        let versions = ["GLIBC_2.2.5", "GLIBC_2.38", "GLIBC_2.4", "GLIBC_PRIVATE", "GCC_3.0"];
        let found = read(&program_of(MACHINE, &mark(), &versions)).unwrap();
        let engine = env!("CARGO_PKG_VERSION").to_owned();
        let expected = ProgramFile { machine: MACHINE, glibc: Some(Glibc(2, 38)), engine, speaks: VERSION };
        assert_eq!(found, expected);
        found.fits_this_engine().unwrap();
        found.fits_this_cpu().unwrap();
        let refused = |there| found.fits_glibc(Some(there)).unwrap_err().to_string();
        assert!(refused(Glibc(2, 36)).contains("needs glibc 2.38, this node has 2.36"));
        assert!(refused(Glibc(1, 99)).contains("this node has 1.99"));
        [None, Some(Glibc(2, 38)), Some(Glibc(2, 100)), Some(Glibc(3, 0))]
            .into_iter()
            .for_each(|there| found.fits_glibc(there).unwrap());
        let none = read(&program_of(MACHINE, &mark(), &["GCC_3.0"])).unwrap();
        none.fits_glibc(Some(Glibc(2, 0))).unwrap();
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_reason() {
        let refused = |content: &[u8]| format!("{:#}", read(content).unwrap_err());
        assert!(refused(b"#!/bin/sh").contains("no Linux program of 64 bits"));
        assert!(refused(&program()[..40]).contains("or damaged"));
        assert!(refused(&program_of(MACHINE, b"int main", &[])).contains("no job of Fluvial"));
        let other = read(&program_of(8, &mark(), &[])).unwrap();
        assert!(other.fits_this_cpu().unwrap_err().to_string().contains("another CPU (ELF machine 8)"));
        let mut later = mark();
        later[16] += 1;
        let later = read(&program_of(MACHINE, &later, &[])).unwrap();
        let why = later.fits_this_engine().unwrap_err().to_string();
        assert!(why.contains("which speaks version 1: build the job with the version of the cluster"), "{why}");
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_read_or_refused() {
        let whole = program();
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
            let mut changed = whole.clone();
            changed[end] = !changed[end];
            let _ = read(&changed);
        }
    }

    #[test]
    fn hostile_files_are_read_or_refused_in_a_bounded_time() {
        let programs = [program(), program_of(MACHINE, &mark(), &["GLIBC_2.2.5", "GLIBC_2.38"])];
        crate::hostile::decode_changed(&programs, 1 << 20, |input| drop(read(input)));
        let many: Vec<_> = (0..60_000).map(|number| format!("GLIBC_2.{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let greedy = program_of(MACHINE, &mark(), &many);
        let why = format!("{:#}", read(&greedy).unwrap_err());
        assert!(why.contains("more than 1024 versions"), "{why}");
    }

    #[test]
    fn the_glibc_of_this_host_is_as_new_as_this_program_needs() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let (needed, there) = (needed_glibc(own.as_slice()).unwrap(), Glibc::of_this_host());
        assert!(needed <= there, "{needed:?} {there:?}");
        assert_eq!(needed.is_some(), there.is_some());
    }
}
