//! Certificates that are wrong in every way there is a word for, the choice among good ones, and handshakes in memory
//! between what is made here and rustls' own other side.

mod certificates;
mod driver;
mod handshakes;
mod loading;
mod mint;
mod pieces;
mod records;
mod selection;
mod sockets;
mod talk;
mod tickets;
mod upstream;
