"""How a reply is answered from knowledge: searched early, quoted, cited."""
