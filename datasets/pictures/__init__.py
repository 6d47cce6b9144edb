"""Drawings of many hands, stored as small pictures: what reads them, what shows them, and what makes them."""
