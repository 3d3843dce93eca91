//! What the spool needs of a disk. The real one is [`Os`]; tests bring one that fails, lies and dies.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;

/// A directory's worth of files.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// The names of the files in a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes a new file to be written from its beginning.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// Opens a file to be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what was created and removed in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// A file that grows.
pub(crate) trait Output: Debug + Send {
    /// Appends some of the bytes and tells how many.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes what was written durable. After an error nobody knows what is, and asking again proves
    /// nothing: the system may have dropped the pages and forgotten.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is read.
pub(crate) trait Input: Debug + Send {
    /// Its length.
    fn len(&self) -> io::Result<u64>;

    /// Reads some bytes from a place on; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Reads until the buffer is full or the file ends, and tells how much there was.
pub(crate) fn read_full(input: &dyn Input, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match input.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes everything, in as many steps as it takes.
pub(crate) fn write_full(output: &mut dyn Output, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The operating system's files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Os;

impl Disk for Os {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let file = fs::File::options().append(true).create_new(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }
}

impl Output for fs::File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is part of the data as far as fdatasync is concerned.
        self.sync_data()
    }
}

impl Input for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}
