//! Which session an Engine.IO request is for, or why it is refused.
