//! Certificates that are wrong in every way there is a word for, the choice among good ones, and handshakes in memory
//! between what is made here and rustls' own other side.

mod certificates;
mod handshakes;
mod loading;
mod mint;
mod selection;
mod tickets;
mod upstream;
