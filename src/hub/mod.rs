//! Socket.IO on top of an Engine.IO engine.
